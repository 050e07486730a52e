"""Why an operation on the filesystem was refused: a sentence for people, an errno for the kernel."""

from __future__ import annotations

import errno

from tvfs.catalog.group_commit import FlushFailed
from tvfs.catalog.rocks import CatalogFull
from tvfs.errors import TaskVaultError
from tvfs.vault.reservations import VaultFull


class PosixError(TaskVaultError):
    """An operation was refused and changed nothing."""

    errno: int = errno.EIO
    """The number that the caller's system call returns."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class NotFound(PosixError):
    """There is no such name or inode."""

    errno = errno.ENOENT


class Exists(PosixError):
    """The name is taken."""

    errno = errno.EEXIST


class NotOpenAnyMore(PosixError):
    """Something is open that could not be opened again when another daemon took over."""

    errno = errno.ESTALE

    def __init__(self) -> None:
        super().__init__("It was opened before the daemon was replaced and is not there any more; open it again.")


class NotADirectory(PosixError):
    """The operation needs a directory."""

    errno = errno.ENOTDIR


class IsADirectory(PosixError):
    """The operation needs something that is no directory."""

    errno = errno.EISDIR


class NotEmpty(PosixError):
    """The directory still has names in it."""

    errno = errno.ENOTEMPTY


class NameTooLong(PosixError):
    """A name is longer than 255 bytes, or a symlink's target than 4,095."""

    errno = errno.ENAMETOOLONG


class Invalid(PosixError):
    """The arguments do not make sense together."""

    errno = errno.EINVAL


class NotPermitted(PosixError):
    """Nobody may do this."""

    errno = errno.EPERM


class ReadOnly(PosixError):
    """The place is read-only: `keys/`, `runs/`, `snapshots/`, `cas/` and what was attached so."""

    errno = errno.EROFS

    def __init__(self, what: str = "This place") -> None:
        super().__init__(f"{what} is read-only; copy what you need to work/ and change it there.")


class NoSpace(PosixError):
    """The vault or the disk below it is full."""

    errno = errno.ENOSPC

    def __init__(self) -> None:
        super().__init__(
            "The vault or the disk below it is full; remove something (`tv rm`, `tv gc`) or give it more room,"
            " then try again."
        )


class TooBig(PosixError):
    """A file would become longer than files can be."""

    errno = errno.EFBIG


class TooManyLinks(PosixError):
    """An inode has as many names as fit into its row."""

    errno = errno.EMLINK


class BadHandle(PosixError):
    """The handle is not open."""

    errno = errno.EBADF

    def __init__(self, handle: int) -> None:
        super().__init__(f"Handle {handle} is not open.")


class NoAttribute(PosixError):
    """The inode has no extended attribute of that name."""

    errno = errno.ENODATA


class OutOfRange(PosixError):
    """An extended attribute is longer than 64 KiB."""

    errno = errno.E2BIG


class Unsupported(PosixError):
    """The filesystem cannot do this; the caller may do it some other way."""

    errno = errno.EOPNOTSUPP


class Stale(PosixError):
    """The kernel believes in a name that is gone; told so, it looks the name up again."""

    errno = errno.ESTALE

    def __init__(self) -> None:
        super().__init__("The file has been evicted.")


class NoMoreData(PosixError):
    """There is nothing of the kind after this offset."""

    errno = errno.ENXIO


class VaultReadOnly(PosixError):
    """The disk has refused to keep something, so that nothing more is accepted."""

    errno = errno.EROFS


class IoFailed(PosixError):
    """The content cannot be read or written: a damaged chunk, a failing disk."""

    errno = errno.EIO


def as_posix(error: TaskVaultError) -> PosixError:
    """Return what a system call is to say of an error that arose below the filesystem."""
    if isinstance(error, PosixError):
        return error
    if isinstance(error, CatalogFull | VaultFull):
        return NoSpace()
    if isinstance(error, FlushFailed):
        return VaultReadOnly(str(error))
    return IoFailed(str(error))
