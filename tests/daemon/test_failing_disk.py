"""A disk that does not keep what it is told to: whoever asked is told, and the vault takes nothing more."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from taskvault.protocol import messages as m
from tests.daemon.conftest import Daemon

pytestmark = pytest.mark.kernel

LONG = b"content" * 4000
"""Longer than what is staged in a row: it has a file, which is synced."""


def sync(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def error_of(path: Path, content: bytes = LONG) -> int:
    with pytest.raises(OSError) as refused:
        sync(path, content)
    assert refused.value.errno is not None
    return refused.value.errno


def trouble(daemon: Daemon) -> str:
    with daemon.client() as client:
        status = client.call(m.GetStatus())
    assert status.healthy == (not status.trouble)
    return status.trouble


def test_after_a_sync_that_failed_nothing_more_is_accepted_and_everything_can_be_read(daemon: Any) -> None:
    daemon.start(mounted=True, env={"TASKVAULT_FAILPOINTS": "fsync.before_data=eio@2"})
    work = daemon.mount / "work"
    sync(work / "before", LONG)
    assert trouble(daemon) == ""
    assert error_of(work / "failing") == errno.EIO
    # A second sync would prove nothing: the kernel says once that it has lost something.
    assert error_of(work / "failing") in (errno.EIO, errno.EROFS)
    assert error_of(work / "another") == errno.EROFS
    with pytest.raises(OSError, match="Read-only"):
        (work / "before").unlink()
    with pytest.raises(OSError, match="Read-only"):
        (work / "before").rename(work / "after")
    assert (work / "before").read_bytes() == LONG
    assert "could not be flushed to disk" in trouble(daemon)
    assert daemon.stop() == 0
    daemon.start(mounted=True)
    assert trouble(daemon) == ""
    assert (work / "before").read_bytes() == LONG
    sync(work / "another", LONG)
    assert daemon.stop() == 0


def test_a_file_whose_sync_found_no_room_is_not_said_to_be_safe_later(daemon: Any) -> None:
    daemon.start(mounted=True, env={"TASKVAULT_FAILPOINTS": "fsync.before_data=enospc@1"})
    work = daemon.mount / "work"
    assert error_of(work / "failing") == errno.ENOSPC
    assert error_of(work / "failing") == errno.EIO
    assert trouble(daemon) == ""
    (work / "failing").unlink()
    sync(work / "failing", LONG)
    assert daemon.stop() == 0
