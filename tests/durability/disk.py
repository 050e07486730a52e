"""A disk that loses power: what system calls leave below a directory, if what was not synced may be lost.

What a file has after `fsync` or `fdatasync` lasts, to its length; a name lasts after an `fsync` of its directory, and
not before, whatever became of the file.  All else is kept, dropped, or torn, as `Fate` says.  That is less than any
common filesystem promises (ext4 keeps the name of a file that was synced, and the order of names), so that nothing here
leans on one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

from tests.durability.recording import LENGTHS, SYNCS, WRITES, Call, Moment

SECTOR = 512
PAGE = 4096


class Fate(Enum):
    """What becomes of what was not synced."""

    DROPPED = "dropped"
    KEPT = "kept"
    TORN = "torn"
    """Each piece of each file by lot, page by page; of the names of each directory the latest are lost, by lot."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A change of a file: bytes at an offset, or a length."""

    offset: int
    content: bytes | None

    def apply(self, to: bytearray) -> None:
        if self.content is None:
            del to[self.offset :]
            to.extend(bytes(self.offset - len(to)))
            return
        to.extend(bytes(max(0, self.offset - len(to))))
        to[self.offset : self.offset + len(self.content)] = self.content


@dataclass(eq=False, slots=True)
class File:
    """Its bytes as programs see them, and what of them lasts."""

    now: bytearray = field(default_factory=bytearray)
    lasting: bytearray = field(default_factory=bytearray)
    unsure: list[Piece] = field(default_factory=list)

    def change(self, piece: Piece) -> None:
        piece.apply(self.now)
        self.unsure.append(piece)

    def last(self, count: int) -> None:
        """The first of the changes that were not sure are."""
        for piece in self.unsure[:count]:
            piece.apply(self.lasting)
        del self.unsure[:count]

    def left(self, fate: Fate, dice: Random) -> bytes:
        """Return what a power loss leaves."""
        if fate is Fate.KEPT or not self.unsure:
            return bytes(self.now)
        left = bytearray(self.lasting)
        if fate is Fate.TORN:
            for piece in self.unsure:
                for part in _torn(piece, dice):
                    part.apply(left)
        return bytes(left)


@dataclass(eq=False, slots=True)
class Directory:
    """Its names as programs see them, and what of them lasts."""

    now: dict[str, Node] = field(default_factory=dict)
    lasting: dict[str, Node] = field(default_factory=dict)
    unsure: list[dict[str, Node | None]] = field(default_factory=list)

    def change(self, names: dict[str, Node | None]) -> None:
        """Give names, or take them away (None), in one step."""
        _rename(self.now, names)
        self.unsure.append(names)

    def last(self, count: int) -> None:
        for names in self.unsure[:count]:
            _rename(self.lasting, names)
        del self.unsure[:count]

    def left(self, fate: Fate, dice: Random) -> dict[str, Node]:
        if fate is Fate.KEPT or not self.unsure:
            return self.now
        left = dict(self.lasting)
        if fate is Fate.TORN:
            for names in self.unsure[: dice.randrange(len(self.unsure) + 1)]:
                _rename(left, names)
        return left


Node = File | Directory


class Disk:
    """What is below one directory, moment after moment of a recording."""

    def __init__(self, below: Path) -> None:
        self._below = f"{below}/"
        self.root = Directory()
        self._syncing: dict[int, tuple[Node, int]] = {}
        self._touched: dict[int, Node | None] = {}

    def __call__(self, moment: Moment) -> None:
        """Take in the next moment."""
        call = moment.call
        if not any(path.startswith(self._below) or f"{path}/" == self._below for path in call.paths):
            return
        if not moment.ends:
            # What a descriptor leads to is decided when the call begins: its file may lose its name meanwhile.
            node = self._find(call.paths[0])
            self._touched[moment.number] = node
            if call.name in SYNCS and node is not None:
                self._syncing[moment.number] = (node, len(node.unsure))
            return
        node = self._touched.pop(moment.number)
        if call.name in SYNCS:
            self._sync(moment.number)
        elif call.name in (*WRITES, *LENGTHS):
            self._write(call, node)
        elif call.name.startswith(("open", "creat")):
            self._open(call)
        else:
            self._names(call)

    def leave(self, to: Path, fate: Fate, dice: Random) -> None:
        """Put below `to` what a power loss leaves now."""
        _leave(self.root, to, fate, dice)

    def files(self) -> dict[str, bytes]:
        """What programs see now, by path."""
        return dict(_files(self.root, ""))

    def _sync(self, number: int) -> None:
        synced = self._syncing.pop(number, None)
        if synced is not None:
            node, count = synced
            # Another sync of the same file may have ended meanwhile, and have taken the first of them.
            for other, (theirs, waiting) in list(self._syncing.items()):
                if theirs is node:
                    self._syncing[other] = (node, max(0, waiting - count))
            node.last(count)

    def _write(self, call: Call, node: Node | None) -> None:
        if node is None:
            return
        assert isinstance(node, File), call
        if call.name in WRITES:
            offset = (
                int(call.numbers[-1 if call.name != "pwritev2" else -2]) if call.name.startswith("p") else len(node.now)
            )
            node.change(Piece(offset, call.content))
        elif call.name == "fallocate":
            mode, offset, length = call.numbers
            if "PUNCH_HOLE" in mode or "ZERO_RANGE" in mode:
                end = min(int(offset) + int(length), len(node.now))
                node.change(Piece(int(offset), bytes(max(0, end - int(offset)))))
            elif "KEEP_SIZE" not in mode and int(offset) + int(length) > len(node.now):
                node.change(Piece(int(offset) + int(length), None))
        else:
            node.change(Piece(int(call.numbers[-1]), None))

    def _open(self, call: Call) -> None:
        flags = " ".join(call.numbers)
        node = self._find(call.paths[0])
        if node is None:
            if "O_CREAT" not in flags and call.name != "creat":
                return
            parent, name = self._parent(call.paths[0])
            parent.change({name: File()})
        elif ("O_TRUNC" in flags or call.name == "creat") and isinstance(node, File) and node.now:
            node.change(Piece(0, None))

    def _names(self, call: Call) -> None:
        kind = call.name.removesuffix("2").removesuffix("at")
        parent, name = self._parent(call.paths[-1])
        if kind == "mkdir":
            parent.change({name: Directory()})
        elif kind in ("unlink", "rmdir"):
            parent.change({name: None})
        elif kind == "link":
            linked = self._find(call.paths[0])
            assert linked is not None
            parent.change({name: linked})
        elif kind == "rename":
            source, old = self._parent(call.paths[0])
            moved = source.now[old]
            if source is parent:
                parent.change({old: None, name: moved})
            else:
                parent.change({name: moved})
                source.change({old: None})
        else:
            raise AssertionError(f"{call.name} is not known here")

    def _find(self, path: str) -> Node | None:
        node: Node = self.root
        for name in filter(None, path[len(self._below) :].split("/")):
            if not isinstance(node, Directory) or name not in node.now:
                return None
            node = node.now[name]
        return node

    def _parent(self, path: str) -> tuple[Directory, str]:
        above, _, name = path.rpartition("/")
        parent = self._find(above)
        assert isinstance(parent, Directory), path
        return parent, name


def _rename(names: dict[str, Node], changes: dict[str, Node | None]) -> None:
    for name, node in changes.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _torn(piece: Piece, dice: Random) -> list[Piece]:
    """Return the parts of a change that the disk still made: whole pages, and the beginning of the last one."""
    if piece.content is None:
        return [piece] if dice.random() < 0.5 else []
    luck = dice.random()
    if luck < 0.3:
        return [piece]
    if luck < 0.5:
        return []
    parts = []
    end = piece.offset + len(piece.content)
    for start in range(piece.offset - piece.offset % PAGE, end, PAGE):
        if dice.random() < 0.5:
            first, stop = max(start, piece.offset), min(start + PAGE, end)
            if dice.random() < 0.2:
                stop = first + (stop - first) // SECTOR * SECTOR
            parts.append(Piece(first, piece.content[first - piece.offset : stop - piece.offset]))
    return parts


def _leave(directory: Directory, to: Path, fate: Fate, dice: Random) -> None:
    to.mkdir(mode=0o700)
    for name, node in sorted(directory.left(fate, dice).items()):
        if isinstance(node, Directory):
            _leave(node, to / name, fate, dice)
        else:
            (to / name).write_bytes(node.left(fate, dice))


def _files(directory: Directory, path: str) -> list[tuple[str, bytes]]:
    found = []
    for name, node in directory.now.items():
        if isinstance(node, Directory):
            found += _files(node, f"{path}{name}/")
        else:
            found.append((f"{path}{name}", bytes(node.now)))
    return found
