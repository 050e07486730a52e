"""Notifications are written in order, by a thread, and no more of them wait than tell different things."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from tvfs.fuse.kernel.notifier import Notifier

F_SETPIPE_SZ = 1031


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Stands in for the kernel, which takes 4 KiB and then nothing until somebody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    yield reading, writing
    for each in (reading, writing):
        os.close(each)


def taken(reading: int, count: int) -> list[bytes]:
    found = b""
    while len(found) < count * 4096:
        found += os.read(reading, 1 << 16)
    return [found[at : at + 4096].strip(b".") for at in range(0, len(found), 4096)]


def notification(name: bytes) -> bytes:
    return name.ljust(4096, b".")


def test_what_is_finished_was_written_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    notifier = Notifier(writing)
    for name in (b"a", b"b", b"c"):
        notifier.send(notification(name))
    notifier.finish()
    notifier.send(notification(b"late"))
    assert taken(reading, 3) == [b"a", b"b", b"c"]
    notifier.join()


def test_while_the_kernel_takes_none_changes_of_the_same_things_do_not_add_up(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    notifier = Notifier(writing)
    names = [b"%d" % number for number in range(8)]
    for name in (b"fills the pipe", *(25_000 * names)):
        notifier.send(notification(name))
    assert len(notifier._waiting) <= len(names)
    notifier.finish()
    told = taken(reading, 1 + len(names))
    notifier.join()
    assert set(told[1:]) == set(names)


def test_what_changes_while_its_notification_is_being_written_is_told_again(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    notifier = Notifier(writing)
    notifier.send(notification(b"fills the pipe"))
    notifier.send(notification(b"a"))
    while notifier._waiting:
        pass  # until it is being written, and held up
    notifier.send(notification(b"a"))
    notifier.send(notification(b"a"))
    notifier.finish()
    assert taken(reading, 3) == [b"fills the pipe", b"a", b"a"]
    notifier.join()


def test_at_the_end_nothing_more_is_begun(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    notifier = Notifier(writing)
    for name in (b"fills the pipe", b"a", b"b", b"c"):
        notifier.send(notification(name))
    while len(notifier._waiting) > 2:
        pass
    notifier.end()
    assert taken(reading, 2) == [b"fills the pipe", b"a"]
    notifier.join()
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
