"""What the kernel says of a process itself, as another one sees it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from taskvault.run.own_view import as_seen_by, holds_own_view
from taskvault.run.pathset import Item, Look
from taskvault.run.states import Sight


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        (b"/proc/self/cgroup", b"/proc/7/cgroup"),
        (b"/proc/thread-self/cgroup", b"/proc/7/task/7/cgroup"),
        (b"/proc/selfish", b"/proc/selfish"),
        (b"/proc/8/cgroup", b"/proc/8/cgroup"),
        (b"/a/proc/self/cgroup", b"/a/proc/self/cgroup"),
        (b"proc/self/cgroup", b"proc/self/cgroup"),
    ],
)
def test_only_names_of_oneself_mean_another_process(path: bytes, seen: bytes) -> None:
    assert as_seen_by(7, path) == seen


def test_a_state_is_that_of_the_caller_if_there_is_one() -> None:
    def digest_of(place: bytes, _: object) -> bytes:
        return Path(place.decode()).read_bytes()

    item = Item(b"/proc/self/status", int(Look.STATE))
    assert holds_own_view([item])
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            for caller, pid in ((None, os.getpid()), (other.pid, other.pid)):
                assert f"\nPid:\t{pid}\n".encode() in Sight(b"/", digest_of, caller).state(item)
        finally:
            other.kill()
