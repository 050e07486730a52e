"""Clients that are killed between asking and being heard must not stop the server.

The server holds its loop for 50 ms at a time, as inline work does.  A client that asks in one such time is seen waiting
at its end; in half of the cases the loop holds again before the request is read, and the client is killed meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from tests.kernel.conftest import Serve, Server

pytestmark = pytest.mark.kernel
HELD_S = 0.05
QUIET_S = 0.8
STALL_S = 0.6
"""Longer than anything but a stall takes; a stall lasts as long as nobody asks anything: `QUIET_S`."""


def kill_a_client_that_asks(server: Server, number: int) -> None:
    code = "import os, sys\nprint(flush=True)\nos.path.exists(sys.argv[1])"
    name = server.work / f"name-{number}"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code, name], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        pause(HELD_S)
        client.kill()


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def longest_stall_s(server: Server, *, attempts: int) -> float:
    longest = 0.0
    for attempt in range(attempts):
        server.ask("longest-stall", "stall")
        kill_a_client_that_asks(server, attempt)
        pause(QUIET_S)
        # Any request ends a stall.
        os.statvfs(server.point)
        longest = max(longest, server.ask("longest-stall", "stall")["seconds"])
        if longest > STALL_S:
            break
    return longest


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["pyfuse3"], indirect=True)
def test_without_the_guard_a_killed_client_stops_the_server(serve: Serve) -> None:
    server = serve("--inline-work", str(HELD_S))
    server.ask("unguard", "unguarded")
    assert longest_stall_s(server, attempts=20) > STALL_S


@pytest.mark.parametrize("transport", ["pyfuse3"], indirect=True)
def test_with_the_guard_a_killed_client_is_nothing(serve: Serve) -> None:
    """With pyfuse3's own intake, so that it is the guard alone that ends the stall."""
    server = serve("--inline-work", str(HELD_S))
    server.ask("plain-intake", "plain intake")
    assert longest_stall_s(server, attempts=5) < STALL_S


@pytest.mark.parametrize("transport", ["kernel"], indirect=True)
def test_without_blocking_reads_a_killed_client_is_nothing_and_no_guard_is_needed(serve: Serve) -> None:
    server = serve("--inline-work", str(HELD_S))
    assert longest_stall_s(server, attempts=5) < STALL_S
