"""A filesystem as dictionaries: what `tvfs.filesystem` is compared with."""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tvfs.filesystem.model import RENAME_EXCHANGE, RENAME_NOREPLACE

NAMES = (b"a", b"b", b"c\xff")
OFFSETS = (0, 1, 4095, 131_071, 131_072, 200_000, 270_000)


@dataclass(eq=False)
class File:
    content: bytes = b""
    mode: int = 0o644


@dataclass(eq=False)
class Link:
    target: bytes


@dataclass(eq=False)
class Directory:
    names: dict[bytes, Any] = field(default_factory=dict)
    mode: int = 0o755


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.errno = code


class Model:
    def __init__(self) -> None:
        self.root = Directory()

    def find(self, path: bytes) -> Any:
        node: Any = self.root
        for name in filter(None, path.split(b"/")):
            if not isinstance(node, Directory):
                raise Refused(errno.ENOTDIR)
            if name not in node.names:
                raise Refused(errno.ENOENT)
            node = node.names[name]
        return node

    def place(self, path: bytes) -> tuple[Directory, bytes]:
        above, _, name = path.rpartition(b"/")
        parent = self.find(above)
        if not isinstance(parent, Directory):
            raise Refused(errno.ENOTDIR)
        return parent, name

    def add(self, path: bytes, node: Any) -> None:
        parent, name = self.place(path)
        if name in parent.names:
            raise Refused(errno.EEXIST)
        parent.names[name] = node

    def write(self, path: bytes, offset: int, data: bytes) -> None:
        parent, name = self.place(path)
        file = parent.names.setdefault(name, File())
        if isinstance(file, Directory):
            raise Refused(errno.EISDIR)
        before = file.content[:offset].ljust(offset, b"\0") if data else file.content
        file.content = before + data + file.content[offset + len(data) :] if data else file.content

    def truncate(self, path: bytes, size: int) -> None:
        file = self.find(path)
        if isinstance(file, Directory):
            raise Refused(errno.EISDIR)
        file.content = file.content[:size].ljust(size, b"\0")

    def remove(self, path: bytes, *, directory: bool) -> None:
        parent, name = self.place(path)
        node = self.find(path)
        if directory != isinstance(node, Directory):
            raise Refused(errno.ENOTDIR if directory else errno.EISDIR)
        if directory and node.names:
            raise Refused(errno.ENOTEMPTY)
        del parent.names[name]

    def link(self, old: bytes, new: bytes) -> None:
        node = self.find(old)
        parent, name = self.place(new)
        if isinstance(node, Directory):
            raise Refused(errno.EPERM)
        if name in parent.names:
            raise Refused(errno.EEXIST)
        parent.names[name] = node

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        parent, name = self.place(old)
        new_parent, new_name = self.place(new)
        node = self.find(old)
        target = new_parent.names.get(new_name)
        if isinstance(node, Directory) and new_parent is not parent and below(new_parent, node):
            raise Refused(errno.EINVAL)
        if flags == RENAME_NOREPLACE and target is not None:
            raise Refused(errno.EEXIST)
        if flags == RENAME_EXCHANGE:
            if target is None:
                raise Refused(errno.ENOENT)
            if isinstance(target, Directory) and new_parent is not parent and below(parent, target):
                raise Refused(errno.EINVAL)
            parent.names[name], new_parent.names[new_name] = target, node
            return
        if target is node:
            return
        if target is not None:
            if isinstance(node, Directory) and not isinstance(target, Directory):
                raise Refused(errno.ENOTDIR)
            if isinstance(target, Directory) and not isinstance(node, Directory):
                raise Refused(errno.EISDIR)
            if isinstance(target, Directory) and target.names:
                raise Refused(errno.ENOTEMPTY)
        del parent.names[name]
        new_parent.names[new_name] = node


def below(directory: Directory, above: Directory) -> bool:
    return directory is above or any(
        below(directory, child) for child in above.names.values() if isinstance(child, Directory)
    )


def links_in(directory: Directory) -> Counter[int]:
    counts: Counter[int] = Counter()
    for node in directory.names.values():
        counts[id(node)] += 1
        if isinstance(node, Directory):
            counts += links_in(node)
    return counts
