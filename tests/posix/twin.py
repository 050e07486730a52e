"""Do the same on a mount and on a plain filesystem, and find them the same: the steps, and how they are compared."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.posix.places import Mount

LONG_AGO_NS = 10**18
"""Times that were set explicitly are before this, and are compared; those of the clock are not."""
_libc = ctypes.CDLL(None, use_errno=True)
_OTHER = """
import os, sys
open_files = {}
for line in sys.stdin.buffer:
    which, path, content = (bytes.fromhex(part) for part in line.decode().split(","))
    try:
        if path:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, content)
            os.close(descriptor)
        print(0, flush=True)
    except OSError as exc:
        print(exc.errno, flush=True)
"""


class Differs(AssertionError):
    """The two are not the same."""


class OtherProcess:
    """Appends when it is told to."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _OTHER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def append(self, path: bytes, content: bytes) -> None:
        """Raise `OSError` as the other process got it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b",".join((b"", path.hex().encode(), content.hex().encode())) + b"\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        if code:
            raise OSError(code, os.strerror(code))

    def close(self) -> None:
        self._process.communicate()


class Twin:
    """A directory on the mount and one beside it.  What a step returns, and how it is refused, must be the same."""

    def __init__(self, mount: Mount, name: str, plain: Path, other: OtherProcess, *, ranges: bool) -> None:
        self.mount = mount
        self.ranges = ranges
        self.roots = (os.fsencode(mount.work / name), os.fsencode(plain / name))
        for root in self.roots:
            os.mkdir(root)
        self._other = other
        self._open: dict[int, tuple[int, int]] = {}
        self._maps: dict[int, tuple[mmap.mmap, mmap.mmap]] = {}
        self.mix: Counter[str] = Counter()

    def both(self, what: str, act: Callable[[int], Any]) -> Any:
        """Do something on each side, and return what both got."""
        self.mix[what] += 1
        outcomes = []
        for side in (0, 1):
            try:
                outcomes.append(act(side))
            except OSError as exc:
                outcomes.append(errno.errorcode.get(exc.errno or 0))
        if outcomes[0] != outcomes[1]:
            raise Differs(f"{what}: {_short(outcomes[0])} on the mount, {_short(outcomes[1])} beside it")
        return outcomes[1]

    def at(self, path: bytes) -> Callable[[int], bytes]:
        return lambda side: self.roots[side] + b"/" + path

    # Names.

    def mkdir(self, path: bytes) -> None:
        self.both("mkdir", lambda side: os.mkdir(self.at(path)(side), 0o755))

    def make(self, path: bytes, mode: int) -> None:
        self.both("mknod", lambda side: os.mknod(self.at(path)(side), mode))

    def symlink(self, path: bytes, target: bytes) -> None:
        self.both("symlink", lambda side: os.symlink(target, self.at(path)(side)))

    def unlink(self, path: bytes) -> None:
        self.both("unlink", lambda side: os.unlink(self.at(path)(side)))

    def rmdir(self, path: bytes) -> None:
        self.both("rmdir", lambda side: os.rmdir(self.at(path)(side)))

    def link(self, old: bytes, new: bytes) -> None:
        self.both("link", lambda side: os.link(self.at(old)(side), self.at(new)(side), follow_symlinks=False))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        def rename(side: int) -> None:
            if _libc.renameat2(-100, self.at(old)(side), -100, self.at(new)(side), flags):
                raise OSError(ctypes.get_errno(), "refused")

        self.both("rename", rename)

    # Attributes.

    def chmod(self, path: bytes, mode: int) -> None:
        self.both("chmod", lambda side: os.chmod(self.at(path)(side), mode))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self.both("chown", lambda side: os.chown(self.at(path)(side), uid, gid, follow_symlinks=False))

    def set_times(self, path: bytes, seconds: int) -> None:
        # What was stored through a mapping and not written yet gets the time of its writing: see docs/design/posix.md.
        for mapped in self._maps.values():
            for each in mapped:
                each.flush()
        times = (seconds * 10**9 + 7, seconds * 10**9 + 123_456_789)
        self.both("utimes", lambda side: os.utime(self.at(path)(side), ns=times, follow_symlinks=False))

    def set_attribute(self, path: bytes, name: str, value: bytes | None) -> None:
        def change(side: int) -> None:
            at = self.at(path)(side)
            os.removexattr(at, name) if value is None else os.setxattr(at, name, value)

        self.both("xattr", change)

    # Files by path.

    def write(self, path: bytes, flags: int, offset: int, content: bytes) -> None:
        def write(side: int) -> int:
            descriptor = os.open(self.at(path)(side), os.O_RDWR | flags, 0o644)
            try:
                return os.pwrite(descriptor, content, offset)
            finally:
                os.close(descriptor)

        if not self._blocks(path):
            self.both("write", write)

    def append_from_elsewhere(self, path: bytes, content: bytes) -> None:
        """Another process appends; ours may have it open for appending too."""
        if not self._blocks(path):
            self.both("append by another process", lambda side: self._other.append(self.at(path)(side), content))

    def truncate(self, path: bytes, size: int) -> None:
        # A tmpfs leaves the times of what was empty before alone; ext4 and the mount do not.
        if size or self._size(path):
            self.both("truncate", lambda side: os.truncate(self.at(path)(side), size))

    def copy(self, old: bytes, new: bytes) -> None:
        """As `cp` does: whole sealed files are copied by reference."""

        def copy(side: int) -> int:
            source = os.open(self.at(old)(side), os.O_RDONLY)
            try:
                target = os.open(self.at(new)(side), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    copied = 0
                    while part := os.copy_file_range(source, target, 1 << 30):
                        copied += part
                    return copied
                finally:
                    os.close(target)
            finally:
                os.close(source)

        if not self._blocks(old) and not self._blocks(new) and not self._same(old, new):
            self.both("copy", copy)

    # Files by descriptor, which outlive their names.

    def open(self, slot: int, path: bytes, flags: int) -> None:
        if slot in self._open or self._blocks(path):
            return
        opened: list[int] = []

        def open_one(side: int) -> None:
            opened.append(os.open(self.at(path)(side), flags, 0o644))

        self.both("open", open_one)
        if opened:
            self._open[slot] = (opened[0], opened[1])

    def close(self, slot: int) -> None:
        self.unmap(slot)
        if slot in self._open:
            self.both("close", lambda side: os.close(self._open[slot][side]))
            del self._open[slot]

    def write_open(self, slot: int, offset: int | None, content: bytes) -> None:
        """At an offset, or at the end of what was written by the descriptor, which with O_APPEND is the file's."""
        if slot in self._open:
            if offset is None:
                self.both("write on", lambda side: os.write(self._open[slot][side], content))
            else:
                self.both("pwrite", lambda side: os.pwrite(self._open[slot][side], content, offset))

    def read_open(self, slot: int, offset: int, length: int) -> None:
        if slot in self._open:
            self.both("pread", lambda side: os.pread(self._open[slot][side], length, offset))

    def truncate_open(self, slot: int, size: int) -> None:
        if slot in self._open:
            self.both("ftruncate", lambda side: os.ftruncate(self._open[slot][side], size))

    def sync(self, slot: int) -> None:
        if slot in self._open:
            self.both("fsync", lambda side: os.fsync(self._open[slot][side]))

    def stat_open(self, slot: int) -> None:
        if slot in self._open:
            self.both("fstat", lambda side: _shown(os.fstat(self._open[slot][side])))

    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        def allocate(side: int) -> None:
            number = ctypes.c_int64
            if _libc.fallocate64(self._open[slot][side], mode, number(offset), number(length)):
                raise OSError(ctypes.get_errno(), "refused")

        if slot in self._open and self.ranges:
            self.both("fallocate", allocate)

    def map(self, slot: int) -> None:
        if slot not in self._open or slot in self._maps or not os.fstat(self._open[slot][1]).st_size:
            return
        mapped: list[mmap.mmap] = []
        self.both("mmap", lambda side: mapped.append(mmap.mmap(self._open[slot][side], 0)))
        if mapped:
            self._maps[slot] = (mapped[0], mapped[1])

    def unmap(self, slot: int) -> None:
        for mapped in self._maps.pop(slot, ()):
            mapped.close()

    def store(self, slot: int, offset: int, content: bytes, *, flush: bool) -> None:
        """Write through the mapping, where the file still is."""
        if slot in self._maps:
            end = min(len(self._maps[slot][1]), os.fstat(self._open[slot][1]).st_size)
            content = content[: max(0, end - offset)]

            def store(side: int) -> None:
                mapped = self._maps[slot][side]
                mapped[offset : offset + len(content)] = content
                if flush:
                    mapped.flush()
                # A tmpfs takes no notice of what is stored through mappings.
                os.utime(self._open[slot][side])

            if content:
                self.both("store", store)

    def load(self, slot: int, offset: int, length: int) -> None:
        if slot in self._maps:
            end = min(len(self._maps[slot][1]), os.fstat(self._open[slot][1]).st_size, offset + length)
            self.both("load", lambda side: self._maps[slot][side][offset : max(offset, end)])

    # What happens to the vault.

    def let_go(self) -> None:
        """Close everything that is open."""
        for slot in list(self._open):
            self.close(slot)

    def seal(self) -> None:
        """Nobody has anything open until all of it is sealed."""
        self.let_go()
        self.mount.rest()
        self.mix["seal and reopen"] += 1

    def mount_anew(self) -> None:
        """Unmount in order, end the daemon, and start another."""
        self.let_go()
        self.mount.again()
        self.mix["remount"] += 1

    def compare(self) -> None:
        """Names, attributes and bytes of everything."""
        self.mix["compare"] += 1
        found, wanted = (seen(root) for root in self.roots)
        if found == wanted:
            return
        differing = sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
        path = differing[0]
        raise Differs(f"{path!r} is {_short(found.get(path))} on the mount, {_short(wanted.get(path))} beside it")

    def _blocks(self, path: bytes) -> bool:
        """Whether opening it would wait for another end."""
        try:
            return stat.S_ISFIFO(os.stat(self.at(path)(1)).st_mode)
        except OSError:
            return False

    def _size(self, path: bytes) -> int:
        try:
            return os.stat(self.at(path)(1)).st_size
        except OSError:
            return 0

    def _same(self, one: bytes, other: bytes) -> bool:
        try:
            return os.path.samefile(self.at(one)(1), self.at(other)(1))
        except OSError:
            return False


def seen(root: bytes) -> dict[bytes, Any]:
    """Everything below a directory, by path."""
    found: dict[bytes, Any] = {}
    numbers: dict[int, int] = {}
    for above, directories, names in os.walk(root):
        directories.sort()
        for name in sorted((*directories, *names)):
            path = above + b"/" + name
            status = os.lstat(path)
            content: bytes | None = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            same = numbers.setdefault(status.st_ino, len(numbers)) if not stat.S_ISDIR(status.st_mode) else -1
            attributes = {} if stat.S_ISLNK(status.st_mode) else _attributes(path)
            found[path[len(root) :]] = (*_shown(status), same, content, attributes)
    return found


def _attributes(path: bytes) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}


def _shown(status: os.stat_result) -> tuple[int, ...]:
    """What must be the same; sizes of directories are each filesystem's own."""
    directory = stat.S_ISDIR(status.st_mode)
    size = 0 if directory else status.st_size
    mtime_ns = status.st_mtime_ns if status.st_mtime_ns < LONG_AGO_NS else LONG_AGO_NS
    return status.st_mode, status.st_nlink, status.st_uid, status.st_gid, size, mtime_ns


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) < 300 else f"{said[:200]} … {said[-60:]} ({len(said)} characters)"
