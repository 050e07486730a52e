"""What a replay puts together in the root before it renames it into place, and what becomes of it if it is killed.

While a replay has something of that in a root it shares a lock on the root's directory, which the kernel takes away
with the process.  Who gets that lock alone knows that whatever has such a name was left behind, and removes it.  Where
the lock cannot be had, on a file system without such locks, say, a replay goes on without, under a name that nobody
ever removes but itself.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REPLAY_PREFIX = ".taskvault-replay-"
"""How the names begin: no inputs."""
PARTIAL = f"{REPLAY_PREFIX}partial-"
"""The same, of what is not complete yet."""
_UNLOCKED = f"{REPLAY_PREFIX}unlocked-"
"""The same, of a replay that could not have the lock: that somebody else has it alone says nothing of that."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TRIES, _BETWEEN_S = 10, 0.002
"""Removing takes a moment; somebody else's lock on the directory, for whatever they do, is not waited for."""


def is_staging(path: str) -> bool:
    """Whether a path has such a name."""
    return path.rpartition("/")[2].startswith(REPLAY_PREFIX)


def is_staged(path: str) -> bool:
    """Whether a path has such a name, or lies below one."""
    return f"/{REPLAY_PREFIX}" in path


@contextmanager
def staging(root: Path) -> Iterator[str]:
    """Yield a path in the root that nobody else uses, to begin names with; the caller removes what gets them."""
    lock = _open(root)
    try:
        prefix = REPLAY_PREFIX if lock is not None and _is_shared(lock) else _UNLOCKED
        yield f"{root}/{prefix}{secrets.token_hex(8)}"
    finally:
        if lock is not None:
            os.close(lock)


def remove_left(root: Path) -> None:
    """Remove what killed replays have left in a root, unless others are under way; trouble changes nothing."""
    lock = _open(root)
    if lock is None:
        return
    try:
        with suppress(OSError):
            # Looked for first: to lock it is to have others wait.
            if _left_in(root):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for place in _left_in(root):
                    remove(place)
    finally:
        os.close(lock)


def remove(place: str) -> None:
    """Remove whatever is there, if anything is and it can be."""
    try:
        os.unlink(place)
    except IsADirectoryError:
        shutil.rmtree(place, ignore_errors=True)
    except OSError:
        return


def _left_in(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(REPLAY_PREFIX)]
    return [f"{root}/{name}" for name in names if not name.startswith(_UNLOCKED)]


def _open(root: Path) -> int | None:
    try:
        return os.open(root, _DIRECTORY)
    except OSError:
        return None


def _is_shared(lock: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_BETWEEN_S)
        except OSError:
            return False
        else:
            return True
    return False
