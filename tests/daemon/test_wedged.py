"""A daemon that stands still, or waits for what does not come: it is named, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from taskvault.cli import mounts
from taskvault.protocol import messages as m
from tests.daemon.test_hand_over import Kept
from tests.waiting import wait_until
from tvd.caretaker import Caretaker

pytestmark = pytest.mark.kernel

LONG = b"content" * 4000
"""Longer than what is staged in a row: it has a file."""


@pytest.fixture
def wedged(tmp_path: Path) -> Iterator[Kept]:
    """A daemon whose loop stands still at the second file that is written, and who takes care of it."""
    made = Kept(
        tmp_path / "vault", caretaker="1000,0,0.4,1.2", env={"TASKVAULT_FAILPOINTS": "stage.before_file=hang@2"}
    )
    yield made
    made.clean_up()


def test_a_mount_whose_server_hangs_is_not_waited_for(wedged: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_PATIENCE_S", 0.05)
    point = str(wedged.work.parent)
    assert not mounts.is_dead(point)
    pid = wedged.owner
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not mounts.is_dead(point)
    finally:
        os.kill(pid, signal.SIGCONT)


def synced(descriptor: int) -> None:
    with suppress(OSError):
        os.fsync(descriptor)


def events(kept: Kept) -> list[str]:
    return [line["event"] for line in kept.log()]


def test_a_loop_that_stands_still_is_told_and_at_last_replaced_with_the_mount_kept(wedged: Kept) -> None:
    (wedged.work / "first").write_bytes(LONG)
    writing = threading.Thread(target=(wedged.work / "second").write_bytes, args=(LONG,))
    writing.start()
    wedged.wait_for_next()
    writing.join(20)
    assert not writing.is_alive()
    assert [(wedged.work / name).read_bytes() for name in ("first", "second")] == [LONG, LONG]
    told = events(wedged)
    still = told.index("the daemon's loop stands still; its stacks follow")
    killed = told.index("the daemon's loop stood still for too long; it is killed and started again")
    assert still < killed < told.index("the mount is taken over")
    said = (wedged.home / "tvd.log").read_text()
    assert "in _hang" in said  # the stacks of the threads
    assert "tvd.owner" in said or "_serve_mount" in said  # the tasks
    wedged.stop()


def test_a_daemon_that_somebody_has_stopped_is_left_alone(tmp_path: Path) -> None:
    taking_care = Caretaker(["tvd", "--home", str(tmp_path)])
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        taking_care._daemon, taking_care._heard_s = sleeper.pid, time.monotonic() - 1000
        sleeper.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
        taking_care._watch()
        assert not (tmp_path / "tvd.log").exists()
        sleeper.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, sleeper.pid, os.WCONTINUED | os.WNOWAIT)
        taking_care._heard_s = time.monotonic() - 1000
        taking_care._watch()
        assert "stands still" in (tmp_path / "tvd.log").read_text()
        assert sleeper.wait(20) == -signal.SIGUSR1
    finally:
        sleeper.kill()
        sleeper.wait()
        taking_care._notices.close()
        taking_care._orders.close()


def test_sigusr1_names_every_task_and_the_oldest_request_with_its_path(daemon: Any) -> None:
    daemon.start(mounted=True, env={"TASKVAULT_FAILPOINTS": "fsync.before_data=hang@1"})
    place = daemon.mount / "work" / "deep"
    place.mkdir()
    descriptor = os.open(place / "wedged file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, LONG)
    syncing = threading.Thread(target=synced, args=(descriptor,))
    syncing.start()

    def is_under_way() -> bool:
        with daemon.client() as client:
            return any(live.name == "fs.fsync" for live in client.call(m.GetActivity()).live)

    wait_until(is_under_way)

    def is_told_where() -> bool:  # asked again, because a request is listed before it has come as far as the file
        daemon.process.send_signal(signal.SIGUSR1)
        said = (daemon.home / "tvd.log").read_text()
        return "staging_files.py" in said[said.rfind("Tasks:") :]

    wait_until(is_told_where)
    wait_until(lambda: "Requests, oldest first" in (daemon.home / "tvd.log").read_text())
    said = (daemon.home / "tvd.log").read_text()
    assert "fs.fsync work/deep/wedged file (handle " in said
    assert "most recent call first" in said
    with daemon.client() as client:

        def is_named() -> bool:
            live = client.call(m.GetActivity()).live
            return any(each.subject.startswith("work/deep/wedged file (handle ") for each in live)

        wait_until(is_named)
    with daemon.client() as client:  # everything else goes on
        assert client.call(m.GetStatus()).pid == daemon.process.pid
    daemon.kill()
    syncing.join(20)
    with suppress(OSError):  # its mount is gone
        os.close(descriptor)
