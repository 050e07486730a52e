"""What can be moved under the mount, whether it has changed, whether two are the same, and how one is removed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from taskvault.mounted import MountedTree
from tvfs.errors import TaskVaultError

_NANOSECOND_KINDS = (stat.S_IFREG, stat.S_IFDIR)
_LOST_ATTRIBUTES = {
    "security.capability": "capabilities",
    "system.posix_acl_access": "an access control list",
    "system.posix_acl_default": "a default access control list",
}
"""What a vault does not keep and a file may depend on; other such attributes belong to the machine."""


class NotAdoptable(TaskVaultError):
    """The directory cannot be moved under the mount, or not back."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"{str(directory)!r} {reason}; nothing was changed.")
        self.directory = directory


def check_adoptable(tree: MountedTree, directory: Path) -> None:
    """Raise `NotAdoptable` for what cannot be moved as it is, before anything is read or written."""
    if directory.is_symlink():
        raise NotAdoptable(directory, "is a symbolic link; name the directory itself")
    if not directory.is_dir():
        raise NotAdoptable(directory, "is not a directory")
    home = Path(os.path.realpath(tree.client.home))
    if directory == Path("/") or home.is_relative_to(directory) or tree.mount.is_relative_to(directory):
        raise NotAdoptable(directory, "holds the vault itself")
    if directory.is_relative_to(home):
        raise NotAdoptable(directory, "is a part of the vault itself")
    if not os.access(directory.parent, os.W_OK | os.X_OK):
        raise NotAdoptable(directory, f"cannot be replaced by a link: {str(directory.parent)!r} is not yours to change")
    mounted = _mounted_at_or_below(directory)
    if mounted is not None:
        raise NotAdoptable(directory, f"has another filesystem mounted on {mounted!r}")
    try:
        _check_attributes(directory, directory)
        for path, found in walk(directory):
            if stat.S_ISLNK(found.st_mode) and _leads_outside(directory, path):
                raise NotAdoptable(
                    directory, f"has a relative link that leads out of it, {str(path)!r}, which would break"
                )
            if stat.S_IFMT(found.st_mode) in _NANOSECOND_KINDS:
                _check_attributes(directory, path)
    except OSError as exc:
        raise NotAdoptable(directory, f"cannot be read ({exc.strerror}: {exc.filename!r})") from exc
    in_use = users(directory, writing=False)
    if in_use:
        raise NotAdoptable(directory, f"is in use by {', '.join(in_use)}; stop that first")


def fingerprint(directory: Path) -> bytes:
    """Return a hash of all names, types, permissions, owners, lengths and times below a directory.

    A file that was written to has another time of change, whatever was done about its other times.
    """
    found = hashlib.sha256()
    for path, status in walk(directory):
        row = (
            os.fsencode(path.relative_to(directory)), status.st_mode, status.st_uid, status.st_gid, status.st_ino,
            0 if stat.S_ISDIR(status.st_mode) else status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        )  # fmt: skip
        found.update(repr(row).encode())
    return found.digest()


def difference(one: Path, other: Path) -> str | None:
    """Return in which way two directories differ in names, types, permissions, owners, lengths, times, targets.

    None if in none.  Content is not read: it was hashed when it was stored.
    """
    mine, theirs = os.lstat(one), os.lstat(other)
    if (mine.st_mode, mine.st_uid, mine.st_gid) != (theirs.st_mode, theirs.st_uid, theirs.st_gid):
        return "it would have another mode or owner"
    return _difference_below(one, other)


def _difference_below(one: Path, other: Path) -> str | None:
    theirs = walk(other)
    for path, status in walk(one):
        name = str(path.relative_to(one))
        found = next(theirs, None)
        if found is None or found[0].relative_to(other) != path.relative_to(one):
            return f"{name!r} would be missing, or something else would be there"
        if (found[1].st_uid, found[1].st_gid) != (status.st_uid, status.st_gid):
            return f"{name!r} would belong to {found[1].st_uid}:{found[1].st_gid}, not {status.st_uid}:{status.st_gid}"
        if found[1].st_mode != status.st_mode:
            return f"{name!r} would have mode {found[1].st_mode:o}, not {status.st_mode:o}"
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG and found[1].st_size != status.st_size:
            return f"{name!r} would have {found[1].st_size} bytes, not {status.st_size}"
        if kind in _NANOSECOND_KINDS and found[1].st_mtime_ns != status.st_mtime_ns:
            return f"{name!r} would have another time of modification"
        if kind == stat.S_IFLNK and os.readlink(found[0]) != os.readlink(path):
            return f"{name!r} would lead elsewhere"
    extra = next(theirs, None)
    return None if extra is None else f"{str(extra[0].relative_to(other))!r} would be there too"


def walk(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield everything below, in order; a stack, because a directory may be deeper than calls can be nested."""
    waiting = [directory]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        for entry in listed:
            yield Path(entry.path), entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))


def remove_tree(directory: Path) -> None:
    """Remove a directory of ours and all below, on its own filesystem only; links are not followed.

    Directories that may not be written to are made so.  Raises `OSError` for what cannot be removed.
    """
    if not os.path.lexists(directory):
        return
    device = os.lstat(directory).st_dev
    waiting: list[tuple[str, bool]] = [(str(directory), False)]
    while waiting:
        path, emptied = waiting.pop()
        if emptied:
            os.rmdir(path)
            continue
        found = os.lstat(path)
        if found.st_dev != device or os.path.ismount(path):
            raise OSError(18, "another filesystem is mounted there", path)
        if stat.S_IMODE(found.st_mode) & 0o700 != 0o700:
            os.chmod(path, stat.S_IMODE(found.st_mode) | 0o700)
        waiting.append((path, True))
        with os.scandir(path) as entries:
            listed = list(entries)
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, False))
            else:
                os.unlink(entry.path)


def users(directory: Path, *, writing: bool) -> list[str]:
    """Name processes that we may look at and that have something in the directory open for writing, or mapped so.

    Unless `writing`, also those that work in it or have a directory open, by which files can be made.  At most three.
    """
    inside = os.fsencode(directory)
    found: list[str] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid() and len(found) < 3:
            with suppress(OSError):
                if _uses(process, inside, writing):
                    found.append(f"process {process.name} ({(process / 'comm').read_text().strip()})")
    return found


def sync_directory(path: Path) -> None:
    """Let the names in a directory survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _uses(process: Path, inside: bytes, writing: bool) -> bool:
    if not writing and _below(os.readlink(os.fsencode(process / "cwd")), inside):
        return True
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            if not _below(os.readlink(os.fsencode(descriptor)), inside):
                continue
            if _is_written(process, descriptor.name) or (not writing and descriptor.is_dir()):
                return True
    for line in (process / "maps").read_bytes().splitlines():
        parts = line.split(None, 5)
        if len(parts) == 6 and parts[1][1:2] == b"w" and parts[1][3:4] == b"s" and _below(parts[5], inside):
            return True
    return False


def _is_written(process: Path, descriptor: str) -> bool:
    for line in (process / "fdinfo" / descriptor).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _below(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")


def _check_attributes(directory: Path, path: Path) -> None:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.ENOTSUP:
            return
        raise
    for name in filter(_LOST_ATTRIBUTES.get, names):
        raise NotAdoptable(directory, f"has {_LOST_ATTRIBUTES[name]} on {str(path)!r}, which would be lost")


def _leads_outside(directory: Path, link: Path) -> bool:
    target = os.readlink(link)
    if os.path.isabs(target):
        return False
    depth = len(link.parent.relative_to(directory).parts)
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:  # even if it comes back in: the directory will have another name
            return True
    return False


def _mounted_at_or_below(directory: Path) -> str | None:
    inside = os.fsencode(directory)
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = line.split()[4].decode("unicode_escape").encode("latin-1")
        if _below(point, inside):
            return os.fsdecode(point)
    return None
