"""What has been promised: facts about paths, each announced before it is brought about and again when it is promised.

A fact is the content that a path has, or that it is not there.  Between the two announcements both the old and the new
are right; and where a file is written in place, or its names change one after the other, any mixture of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

Value = bytes | None
"""The content of a file, or None: there is no such path."""


class Line(msgspec.Struct, array_like=True):
    """One announcement."""

    promised: bool
    facts: dict[str, Value]
    in_place: bool = False
    """Whether the files are written where they are, so that a part of it may be there."""
    one_of: list[str] = []
    """Of these paths at least one must have the value it is to have: a file that is renamed is always somewhere."""
    handed_over: bool = False
    """Promised to survive the death of the daemon, not a power loss: it was written, and not synced."""


class LedgerFile:
    """Where announcements are written: each is one system call, whose place among others is its place in time."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __call__(self, line: Line) -> None:
        packed = msgspec.msgpack.encode(line)
        whole = len(packed).to_bytes(4, "big") + packed
        assert os.write(self._descriptor, whole) == len(whole)

    def close(self) -> None:
        os.close(self._descriptor)


def lines_of(content: bytes) -> Iterator[Line]:
    """Yield what a ledger file says."""
    at = 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        yield msgspec.msgpack.decode(content[at + 4 : at + 4 + length], type=Line)
        at += 4 + length


@dataclass
class Ledger:
    """What may be found, after some announcements."""

    allowed: dict[str, list[Value]] = field(default_factory=dict)
    in_place: set[str] = field(default_factory=set)
    moving: list[tuple[list[str], bytes]] = field(default_factory=list)
    promises: int = 0
    power_is_kept: bool = False
    """Whether what was handed over counts as promised."""

    def note(self, line: Line) -> None:
        """Take in the next announcement."""
        if line.handed_over and not self.power_is_kept:
            return
        for path, value in line.facts.items():
            if line.promised:
                self.allowed[path] = [value]
                self.in_place.discard(path)
                self.moving = [each for each in self.moving if path not in each[0]]
                self.promises += 1
            else:
                self.allowed.setdefault(path, [None]).append(value)
                if line.in_place:
                    self.in_place.add(path)
        if line.one_of:
            content = next(line.facts[path] for path in line.one_of if line.facts[path] is not None)
            assert content is not None
            self.moving.append((line.one_of, content))

    def settle(self, find: Callable[[str], Value]) -> list[str]:
        """Compare as `wrong` does; of what may be one or the other, what was found is so from now on.

        What is gone is forgotten, or each comparison would take longer than the one before.
        """
        found = {path: find(path) for path in self.allowed}
        wrong = self.wrong(found.__getitem__)
        self.allowed = {path: [value] for path, value in found.items() if value is not None}
        self.in_place.clear()
        self.moving.clear()
        return wrong

    def wrong(self, find: Callable[[str], Value]) -> list[str]:
        """Return a sentence for each fact that is not so; `find` looks a path up."""
        found = {path: find(path) for path in self.allowed}
        wrong = [
            f"{path} {_told(found[path])}, and should be {' or '.join(map(_told, allowed))}"
            for path, allowed in self.allowed.items()
            if not (found[path] in allowed or (path in self.in_place and _is_mixture(found[path], allowed)))
        ]
        wrong += [
            f"a file that was being renamed is at none of {paths}"
            for paths, content in self.moving
            if all(found[path] != content for path in paths)
        ]
        return wrong


def after(lines: Iterable[Line]) -> Ledger:
    """Return what may be found after these announcements."""
    ledger = Ledger()
    for line in lines:
        ledger.note(line)
    return ledger


def _is_mixture(found: Value, of: list[Value]) -> bool:
    """Whether each byte is that of one of the values at its place, or zero: it was never written."""
    values = [value for value in of if value is not None]
    if found is None or len(found) > max(map(len, values), default=0):
        return found is None and None in of
    unexplained = found.replace(b"\0", b"") and _differences(found, values)
    return not unexplained


def _differences(found: bytes, values: list[bytes]) -> bool:
    # Whole pieces at a time: what differs is looked at byte by byte.
    step = 4096
    for start in range(0, len(found), step):
        piece = found[start : start + step]
        if any(value[start : start + len(piece)] == piece for value in values):
            continue
        for place, byte in enumerate(piece, start):
            if byte and all(place >= len(value) or value[place] != byte for value in values):
                return True
    return False


def _told(value: Value) -> str:
    return "missing" if value is None else f"{len(value)} bytes {value[:6].hex()}…{value[-3:].hex()}"
