"""`tv top`."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from taskvault.cli.activity_sample import sample
from taskvault.cli.activity_view import lines
from taskvault.protocol.maintenance import Activity, LiveOperation, Operation
from tests.cli.conftest import ROOT, Vault

pytestmark = pytest.mark.kernel


def activity(time_s: float, **fields: object) -> Activity:
    counters = dict.fromkeys(("hits", "misses", "read_bytes", "written_bytes"), 0)
    gauges = dict.fromkeys(("dirty_bytes", "open_files", "connections"), 0)
    return Activity(time_s=time_s, **{"operations": [], "live": [], **counters, **gauges, **fields})  # type: ignore[arg-type]


def test_rates_are_what_happened_between_two_looks() -> None:
    before = activity(10.0, operations=[Operation("fs.read", 100, 1.0, 0.5)], hits=3, read_bytes=1000)
    after = activity(
        12.0,
        operations=[Operation("fs.read", 140, 1.4, 0.5), Operation("fs.open", 2, 0.1, 0.09)],
        live=[LiveOperation("Commit", "process 7", 3.5)],
        hits=6,
        misses=1,
        read_bytes=5000,
        dirty_bytes=7,
    )
    found = sample(before, after)
    read, opened = found.operations
    assert (read.name, read.per_s, round(read.mean_s, 6), read.slowest_s) == ("fs.read", 20.0, 0.01, 0.5)
    assert (opened.per_s, opened.mean_s) == (1.0, 0.05)
    assert (found.interval_s, found.hit_rate, found.read_bytes_per_s, found.dirty_bytes) == (2.0, 0.75, 2000.0, 7)
    assert [rate.name for rate in found.slowest] == ["fs.read", "fs.open"]
    text = "\n".join(lines(found))
    assert "75% hits" in text
    assert "under way for 3.5 s: Commit, process 7" in text


def test_without_look_ups_in_the_interval_the_hit_rate_is_that_of_all_time() -> None:
    assert sample(activity(1.0), activity(2.0)).hit_rate is None
    assert sample(activity(1.0, hits=1, misses=3), activity(2.0, hits=1, misses=3)).hit_rate == 0.25


def test_a_daemon_that_began_anew_gives_no_negative_rates() -> None:
    before = activity(500.0, operations=[Operation("fs.read", 100, 1.0, 0.5)], read_bytes=1000)
    found = sample(before, activity(4.0, operations=[Operation("fs.read", 8, 0.1, 0.1)], read_bytes=40))
    assert (found.operations[0].per_s, found.read_bytes_per_s) == (2.0, 10.0)


def test_once_shows_what_was_done_meanwhile(vault: Vault, work: Path) -> None:
    process = vault.start("top", "--once", "--interval", "2", "--json")
    time_left = time.monotonic() + 2.5
    while process.poll() is None and time.monotonic() < time_left:
        (work / "file").write_bytes(b"x" * 5000)
        (work / "file").unlink()
        vault.tv("cache", "get", "no-such-key", exit_code=1)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    import msgspec

    from taskvault.cli.answers import Sample

    found = msgspec.json.decode(out, type=Sample)
    rates = {rate.name: rate for rate in found.operations}
    assert rates["fs.create"].per_s > 0
    assert rates["GetEntry"].per_s > 0
    assert 0 < rates["fs.create"].mean_s <= rates["fs.create"].slowest_s < 10
    assert found.written_bytes_per_s > 0
    assert found.misses > 0
    assert found.connections >= 1


def test_look_ups_that_hit_are_counted_as_such(vault: Vault, work: Path) -> None:
    (work / "file").touch()
    vault.tv("cache", "save", "hit-in-top", "file", cwd=work)
    before = vault.json("top", "--interval", "0.1")["hits"]
    vault.tv("cache", "get", "hit-in-top", "--to", "out", cwd=work)
    assert vault.json("top", "--interval", "0.1")["hits"] == before + 1


def test_without_a_terminal_one_sample_follows_another_until_the_daemon_is_gone(tmp_path: Path) -> None:
    own = Vault(tmp_path / "home")
    own.tv("init", "--size", "100M")
    own.tv("up", "--no-mount")
    process = own.start("top", "--interval", "0.2")
    assert process.stdout is not None
    assert b"requests/s" in process.stdout.readline()
    own.tv("down")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert err.startswith(b"tv: No daemon answers")
    assert err.count(b"\n") == 1


def test_ctrl_c_gives_the_terminal_back_as_it_was(vault: Vault) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-m", "taskvault", "top", "--interval", "0.1"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=vault.environment(TERM="xterm"),
        start_new_session=True,
        # Whoever runs the tests in the background has it ignored, and so would we.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    shown = read_until(ours, b"requests/s")
    assert b"\x1b[?1049h" in shown, "the other screen"
    process.send_signal(signal.SIGINT)
    shown = read_until(ours, b"\x1b[?1049l")
    assert process.wait(timeout=30) == 0
    assert b"\x1b[?25h" in shown, "the cursor is shown again"
    assert b"Traceback" not in shown
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def read_until(terminal: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        assert select.select([terminal], [], [], 30)[0], shown
        shown += os.read(terminal, 65536)
    return shown


def test_an_interval_that_makes_no_sense_is_a_usage_error(vault: Vault) -> None:
    for interval in ("0", "-1", "nan", "soon"):
        vault.tv("top", "--interval", interval, exit_code=2)
