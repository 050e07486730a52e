from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import trio
from trio.testing import MockClock

from tvd.config import ServiceConfig
from tvd.readiness import ReadyPipe, ServiceManager


def test_whoever_started_the_daemon_reads_one_line_and_the_end() -> None:
    reading, writing = os.pipe()
    pipe = ReadyPipe(writing)
    pipe.succeed(Path("/mnt/v"))
    pipe.fail("too late", 4)
    with open(reading, "rb") as read:
        assert json.loads(read.read()) == {"ok": True, "mount": "/mnt/v", "pid": os.getpid()}


def test_a_failure_carries_its_sentence_and_exit_code() -> None:
    reading, writing = os.pipe()
    ReadyPipe(writing).fail("No.", 3)
    with open(reading, "rb") as read:
        assert json.loads(read.read()) == {"ok": False, "error": "No.", "exit_code": 3}


def test_nobody_who_listens_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ReadyPipe(writing).succeed(None)
    ReadyPipe(None).succeed(None)
    ServiceManager(ServiceConfig()).ready("x")
    ServiceManager(ServiceConfig(notify_socket="/nowhere")).stopping()


async def test_systemd_hears_that_we_are_ready_alive_and_stopping(tmp_path: Path, autojump_clock: MockClock) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        manager = ServiceManager(ServiceConfig(notify_socket=str(tmp_path / "notify"), watchdog_s=10))
        manager.ready("serving")
        with trio.move_on_after(12):
            await manager.feed_watchdog()
        manager.stopping()
        heard = [systemd.recv(1000).decode() for _ in range(5)]
    assert heard == ["READY=1\nSTATUS=serving", *["WATCHDOG=1"] * 3, "STOPPING=1\nSTATUS=flushing"]


async def test_without_a_watchdog_nothing_runs() -> None:
    await ServiceManager(ServiceConfig(notify_socket="/nowhere")).feed_watchdog()
