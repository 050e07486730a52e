"""Helpers are bounded, and say why they failed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from tvfs.fuse.helper_process import run_helper


async def test_the_status_and_the_reason_come_back() -> None:
    result = await run_helper(["sh", "-c", "echo why >&2; exit 3"], timeout_s=10)
    assert (result.status, result.message) == (3, "why")


async def test_a_command_that_is_missing_is_a_failure_like_any_other() -> None:
    result = await run_helper(["no-such-command-at-all"], timeout_s=10)
    assert result.status == 127
    assert "no-such-command-at-all" in result.message


async def test_a_command_that_may_not_be_run_is_a_failure_like_any_other(tmp_path: Path) -> None:
    """On some machines only members of a group may run fusermount3."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    result = await run_helper([str(program)], timeout_s=10)
    assert result.status == 127
    assert "Permission denied" in result.message


async def test_programs_are_not_looked_for_in_the_directories_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them may be on the mount, which does not answer while a helper is being started."""
    program = tmp_path / "umount"
    program.write_text("#!/bin/sh\necho planted >&2; exit 5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = await run_helper(["umount", "--version"], timeout_s=10)
    assert (result.status, result.message) == (0, "")


async def test_a_helper_that_hangs_is_killed() -> None:
    before = time.monotonic()
    result = await run_helper(["sleep", "60"], timeout_s=0.05)
    assert result.status is None
    assert "`sleep 60` did not end within 0.05 s" in result.message
    assert time.monotonic() - before < 10


async def test_much_output_does_not_fill_the_pipe() -> None:
    result = await run_helper(["sh", "-c", "yes | head -c 300000 >&2; exit 4"], timeout_s=20)
    assert result.status == 4
    assert len(result.message) <= 4096


async def test_a_helper_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        await run_helper(
            ["sh", "-c", f"echo $$ >{tmp_path}/pid.new && mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60"],
            timeout_s=60,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not (tmp_path / "pid").exists():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
