"""How far moving a directory under the mount, or back, went: one small file beside it, while it goes on.

`.NAME.taskvault-adoption` is there from before the first change until after the last.  `.NAME.taskvault-aside` is,
before the switch, what will be exchanged with the directory, and after it what was there before.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from taskvault.adoptable import NotAdoptable, sync_directory

ADOPTED = Path("work", "adopted")
"""Below the mount; what is adopted lies there under its name and a hash of its absolute path."""
_MOST_NAME_BYTES = 160


class _Stored(msgspec.Struct, frozen=True):
    version: int
    place: bytes
    fingerprint: bytes
    evictable: bool
    releasing: bool
    decided: bool


class Journal:
    """Of one directory."""

    def __init__(self, directory: Path, place: Path) -> None:
        self.directory = directory
        self.place = place
        """Where the content lies under the mount."""
        self.path = _sibling(directory, ".taskvault-adoption")
        self.aside = _sibling(directory, ".taskvault-aside")
        self.fingerprint = b""
        self.evictable = False
        self.releasing = False
        """The content moves back."""
        self.decided = False
        """The switch was made and what was there before may go."""

    def read(self) -> bool:
        """Take over what an earlier attempt has written; return whether there is something."""
        try:
            stored = msgspec.json.decode(self.path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            if os.path.lexists(self.aside):
                raise NotAdoptable(self.directory, f"cannot be moved while {str(self.aside)!r} is there") from None
            return False
        except msgspec.MsgspecError:
            raise NotAdoptable(
                self.directory, f"was being moved, and {str(self.path)!r} cannot be read; look at {str(self.aside)!r}"
            ) from None
        if Path(os.fsdecode(stored.place)) != self.place:
            raise NotAdoptable(
                self.directory,
                f"was being moved to {os.fsdecode(stored.place)!r}, of another vault; finish it there, "
                f"or look at that and {str(self.aside)!r} and remove {str(self.path)!r}",
            )
        self.fingerprint, self.evictable = stored.fingerprint, stored.evictable
        self.releasing, self.decided = stored.releasing, stored.decided
        return True

    def write(self, *, fingerprint: bytes, evictable: bool, releasing: bool = False) -> None:
        """Note what is going to happen; durable when this returns."""
        self.fingerprint, self.evictable, self.releasing, self.decided = fingerprint, evictable, releasing, False
        self._store()

    def decide(self) -> None:
        """Note that what was there before may go; durable when this returns."""
        if not self.decided:
            self.decided = True
            self._store()

    def remove(self) -> None:
        """Everything is done."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        sync_directory(self.directory.parent)

    def is_written(self) -> bool:
        """Whether something may have been begun."""
        return self.path.exists()

    def is_switched(self) -> bool:
        """Whether directory and what was prepared have changed places."""
        if self.releasing:
            return _is_directory(self.directory) and _is_link(self.aside)
        return _is_link(self.directory) and _is_directory(self.aside)

    def leads_to_place(self) -> bool:
        """Whether the directory is the link that is left of it."""
        return _is_link(self.directory) and Path(os.readlink(self.directory)) == self.place

    def is_back(self) -> bool:
        """Whether what was adopted, or is to be, is where it was: only then is what lies in `place` a copy of it."""
        return _is_directory(self.directory)

    def _store(self) -> None:
        place = os.fsencode(self.place)
        row = msgspec.json.encode(_Stored(1, place, self.fingerprint, self.evictable, self.releasing, self.decided))
        new = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, row)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(new, self.path)
        sync_directory(self.path.parent)


def journal_of(mount: Path, directory: Path) -> Journal:
    """Return the journal of a directory that is, or is to be, in the vault mounted at `mount`."""
    raw = os.fsencode(directory)
    name = os.fsdecode(os.path.basename(raw)[:_MOST_NAME_BYTES].decode("utf-8", "ignore").encode())
    return Journal(directory, mount / ADOPTED / f"{name}-{hashlib.sha256(raw).hexdigest()[:12]}")


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Hold what only one process has for the directory's parent; raise `NotAdoptable` if another has it."""
    descriptor = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotAdoptable(directory, "or one beside it is being moved by another process; wait for that") from None
        yield
    finally:
        os.close(descriptor)


def _sibling(directory: Path, suffix: str) -> Path:
    name = directory.name
    if len(os.fsencode(name)) + len(suffix) + 5 > 255:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return directory.with_name(f".{name}{suffix}")


def _is_link(path: Path) -> bool:
    return stat.S_ISLNK(_mode(path))


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
