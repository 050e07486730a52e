"""Every failpoint is hit on purpose: by a kill, and by an error where a system call follows that may fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durability.ledger import Ledger, after, lines_of
from tests.durability.power_loss import value_of
from tests.unit.fsck.sample_vault import opened
from tvfs import failpoints

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "request.changed": "tests/daemon/test_hand_over.py",
    "request.opened": "tests/daemon/test_hand_over.py",
    "notification.waits": "tests/daemon/test_hand_over.py",
    "replay.prepared": "tests/runs/test_killed_replays.py",
    **{point: "tests/cli/test_adopt.py" for point in failpoints.POINTS if point.startswith(("adopt.", "release."))},
}
"""Points that need a client, or the kernel, by the file whose tests kill at them."""
HERE = [point for point in failpoints.POINTS if point not in ELSEWHERE]

FAILS = {
    "commit.before_append": ("eio", "enospc"),
    "commit.after_append": ("eio", "enospc"),
    "stage.before_file": ("eio", "enospc"),
    "stage.write": ("eio", "enospc"),
    "stage.before_map": ("eio", "enospc"),
    "fsync.before_data": ("eio", "enospc"),
}
"""Points right before a system call that may fail, and how."""

Order = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def driver() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faults.failpoint_driver"]
    with subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process


@pytest.fixture
def order(driver: subprocess.Popen[str], tmp_path: Path) -> Order:
    """Have everything done with this armed."""

    def give(armed: str) -> dict[str, Any]:
        assert driver.stdin is not None
        assert driver.stdout is not None
        print(json.dumps([str(tmp_path / "home"), str(tmp_path / "ledger"), armed]), file=driver.stdin, flush=True)
        told: dict[str, Any] = json.loads(driver.stdout.readline())
        return told

    return give


async def compare(tmp_path: Path) -> Ledger:
    """Start after what happened: every fact must be as the ledger says, and the vault in order afterwards."""
    ledger = after(lines_of((tmp_path / "ledger").read_bytes()))
    async with opened(tmp_path / "home") as world:
        values = {path: await value_of(world, path) for path in ledger.allowed}
        assert ledger.wrong(values.__getitem__) == []
    return ledger


async def test_every_point_is_reached_on_purpose(order: Order, tmp_path: Path) -> None:
    told = order("")
    assert told["status"] == 0
    assert told["refused"] == []
    assert [point for point in HERE if not told["counts"].get(point)] == []
    assert (await compare(tmp_path)).promises >= 6


@pytest.mark.parametrize(("point", "file"), ELSEWHERE.items())
def test_a_point_that_needs_more_is_hit_by_a_test_of_its_own(point: str, file: str) -> None:
    assert f"{point}=kill" in (ROOT / file).read_text() or f'    "{point}",' in (ROOT / file).read_text()


@pytest.mark.parametrize("nth", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", HERE)
async def test_a_kill_at_any_point_loses_nothing_promised(order: Order, tmp_path: Path, point: str, nth: int) -> None:
    told = order(f"{point}=kill@{nth}")
    if nth > 1 and told["status"] == 0:
        return  # it is reached once
    assert told == {"status": -9}
    await compare(tmp_path)


@pytest.mark.parametrize(("point", "error"), [(point, error) for point, errors in FAILS.items() for error in errors])
async def test_an_error_at_any_point_is_told_to_whoever_asked_and_loses_nothing(
    order: Order, tmp_path: Path, point: str, error: str
) -> None:
    told = order(f"{point}={error}@1")
    assert told["status"] == 0
    assert told["refused"], "nobody was told"
    await compare(tmp_path)
