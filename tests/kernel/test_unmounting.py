"""How a mount ends: what programs have written is with the filesystem before the session is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.conftest import EVERY_WAY, GATHERING, WRITEBACK, Serve

pytestmark = pytest.mark.kernel


def is_mounted(point: Path) -> bool:
    return f" {point} " in Path("/proc/self/mountinfo").read_text()


@GATHERING
def test_sigterm_loses_nothing_of_a_file_that_is_still_open_and_dirty(serve: Serve) -> None:
    server = serve("--show-contents")
    descriptor = os.open(server.work / "dirty", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"not yet with the filesystem")
    assert server.ask("counts", "counts")["write"] == 0
    server.send_signal(signal.SIGTERM)
    assert server.answer("ended")["contents"] == {"dirty": "not yet with the filesystem"}
    assert server.wait() == 0
    with suppress(OSError):
        os.close(descriptor)
    assert not is_mounted(server.point)


@EVERY_WAY
def test_sigterm_loses_nothing_of_a_mapping(serve: Serve) -> None:
    server = serve("--show-contents")
    code = (
        "import mmap, sys\nf = open(sys.argv[1], 'w+b'); f.truncate(5); m = mmap.mmap(f.fileno(), 0); f.close()\n"
        "m[:] = b'hello'; print('mapped', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, server.work / "map"], stdin=pipe, stdout=pipe) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"mapped\n"
        server.send_signal(signal.SIGTERM)
        assert server.answer("ended")["contents"] == {"map": "hello"}
        client.kill()


def test_an_unmount_in_use_is_refused_and_names_the_user(serve: Serve) -> None:
    server = serve()
    with open(server.work / "file", "w") as file:
        refused = server.ask("unmount", "refused")
        assert refused["error"] == "MountHeld"
        assert f"pid {os.getpid()}: {server.work / 'file'}" in refused["message"]
        file.write("still works")
    assert (server.work / "file").read_text() == "still works"
    server.tell("unmount")
    server.answer("ended")
    assert not is_mounted(server.point)


def test_a_directory_somebody_stands_in_is_named_too(serve: Serve) -> None:
    server = serve()
    with subprocess.Popen(["sleep", "60"], cwd=server.work) as sleeper:
        refused = server.ask("unmount", "refused")
        assert f"sleep (pid {sleeper.pid}: {server.work})" in refused["message"]
        sleeper.kill()


@EVERY_WAY
def test_an_unmount_with_force_flushes_and_takes_the_mount_away_at_once(serve: Serve) -> None:
    server = serve("--show-contents")
    with open(server.work / "file", "w") as file:
        file.write("dirty")
        file.flush()
        server.tell("force-unmount")
        while is_mounted(server.point):
            os.sched_yield()
        # Files that were open work on until the session ends.
        file.write(" and more")
        file.flush()
        os.fsync(file.fileno())
    assert server.answer("ended")["contents"] == {"file": "dirty and more"}


def test_anybody_who_may_can_unmount_and_the_server_ends(serve: Serve) -> None:
    server = serve("--show-contents")
    (server.work / "file").write_text("content")
    subprocess.run(["umount", str(server.point)], check=True, timeout=20)
    assert server.answer("ended")["contents"] == {"file": "content"}
    assert server.wait() == 0


def test_unlinked_files_are_purged_when_the_kernel_lets_go_of_them(serve: Serve) -> None:
    server = serve()
    for number in range(100):
        (server.work / f"{number}").write_text("x")
        (server.work / f"{number}").unlink()
    with open(server.work / "open", "w"):
        (server.work / "open").unlink()
        server.send_signal(signal.SIGTERM)
        # Root and its five places; the unlinked file, still open here, is gone with the session.
        assert server.answer("ended")["inodes"] <= 7


@pytest.mark.parametrize("transport", ["kernel", WRITEBACK], indirect=True)
def test_names_that_are_announced_to_the_very_end_do_not_hold_it_up(serve: Serve) -> None:
    """The kernel lets an announcement wait for whoever changes the directory, who may wait for an answer of ours."""
    server = serve()
    server.ask("announce", "announcing")
    code = (
        "import os, sys\nplace = os.open(sys.argv[1], os.O_RDONLY)\nprint('changing', flush=True)\n"
        "while True: os.mkdir(str(os.getpid()), dir_fd=place); os.rmdir(str(os.getpid()), dir_fd=place)"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", code, server.work], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == b"changing\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        # All of them first: one holds what another waits for.
        for client in clients:
            client.kill()
        for client in clients:
            client.communicate(timeout=20)
