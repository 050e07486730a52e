"""The standard input of a traced run, which counts only with `--stdin`: otherwise it must not have been read.

A terminal is not given to the command at all: whatever is typed cannot be known beforehand.  A pipe or file is, and it
is looked at before and after; nothing of it is ever taken, for it may be what our caller goes on to read.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import stat
import termios
from contextlib import suppress

READ_IT = "it read its standard input; give that with --stdin, then its content counts"


class Stdin:
    """Our own, before a command is started."""

    def __init__(self) -> None:
        """Look at it."""
        self.is_given = False
        self._mark: tuple[object, ...] = ()
        with suppress(OSError):  # closed: nothing to give
            self.is_given = not os.isatty(0) and not _is_nothing(os.fstat(0))
            self._mark = _mark()

    def was_read(self) -> bool:
        """Whether anything of it has been taken since; true also where that cannot be excluded."""
        if not self.is_given:
            return False
        try:
            return _mark() != self._mark
        except OSError:
            return True


def _is_nothing(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev


def _mark() -> tuple[object, ...]:
    """Return what reading changes: where a file stands; how much a pipe holds, and whether it has ended."""
    if stat.S_ISREG(os.fstat(0).st_mode):
        return ("file", os.lseek(0, 0, os.SEEK_CUR))
    waiting = array.array("i", [0])
    fcntl.ioctl(0, termios.FIONREAD, waiting)
    ready = select.poll()
    ready.register(0, select.POLLIN)
    events = sum(event for _, event in ready.poll(0))
    return ("pipe", waiting[0], bool(events & select.POLLHUP))
