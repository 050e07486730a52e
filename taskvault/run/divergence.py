"""Where two results of the same run differ, and the likely cause.  Pure, but for reading the files that it is given."""

from __future__ import annotations

import operator
import os
import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import IO, Literal

ORDER_BYTES = 8 << 20
"""Longer content is not looked through for lines in another order."""
_AROUND = 128
_PART_BYTES = 1 << 20
_DAY_S = 86_400
_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_YEAR_S = 366 * _DAY_S
_CLOCK = re.compile(rb"\b\d{1,2}:\d{2}(?::\d{2})?\b|\b(?:19|20)\d{2}[-/.]\d{2}[-/.]\d{2}|\b(?:19|20)\d{6}(?:T|\b)")
_EPOCH = re.compile(rb"(?<!\d)1\d{9}(?:\.?\d+)?(?!\d)")
_MONTH = re.compile(rb"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b.{0,8}\d", re.DOTALL)
_WORD = re.compile(rb"[0-9A-Za-z_+/=.~-]")
_RANDOM = re.compile(rb"[0-9A-Za-z_+=-]{6,}\Z")


class Cause(StrEnum):
    """What made two runs of a command differ, as far as what they made shows it."""

    TIME = "a time"
    PATH = "a path"
    ORDER = "another order"
    RANDOMNESS = "randomness, or a number that grows, such as a process id"
    UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that is not as it is stored."""

    name: str
    """The path, or `stdout` or `stderr`."""
    how: str
    """What differs, where it is no content: `it is not there`, `its permissions`."""
    offset: int | None = None
    """In bytes, of the first difference in content."""
    cause: Cause = Cause.UNKNOWN

    def __str__(self) -> str:
        where = "" if self.offset is None else f" at byte {self.offset}"
        why = f", probably for {self.cause}" if self.cause else ""
        return f"{self.name} {self.how}{where}{why}"


def compare_content(name: str, stored: IO[bytes], made: IO[bytes], *, now_s: float) -> Divergence | None:
    """Return where two files differ first, and the likely cause; None if they do not."""
    offset = _first_difference(stored, made)
    if offset is None:
        return None
    cause = likely_cause(_around(stored, offset), _around(made, offset), min(offset, _AROUND), now_s=now_s)
    if cause is not Cause.TIME and _same_lines(stored, made):
        cause = Cause.ORDER
    return Divergence(name, "differs", offset, cause)


def likely_cause(stored: bytes, made: bytes, at: int, *, now_s: float) -> Cause:
    """Return why two stretches of content differ that do so first at `at`; `now_s` is when the second was made."""
    if _is_time(stored, made, at, now_s):
        return Cause.TIME
    words = _word_at(stored, at), _word_at(made, at)
    if all(b"/" in word for word in words):
        return Cause.PATH
    if all(word.isdigit() for word in words):
        return Cause.RANDOMNESS
    if len(words[0]) == len(words[1]) and all(_RANDOM.match(word) for word in words):
        differing = sum(a != b for a, b in zip(*words, strict=True))
        if 2 * differing > len(words[0]):
            return Cause.RANDOMNESS
    return Cause.UNKNOWN


def _is_time(stored: bytes, made: bytes, at: int, now_s: float) -> bool:
    if any(_is_near(pattern, stored, at) and _is_near(pattern, made, at) for pattern in (_CLOCK, _EPOCH, _MONTH)):
        return True
    # In binary, seconds since 1970: gzip, Python's .pyc, ELF notes …
    for start in range(max(0, at - 3), at + 1):
        for order in _BYTE_ORDERS:
            before, now = (int.from_bytes(each[start : start + 4], order) for each in (stored, made))
            if abs(now - now_s) < _DAY_S and 0 <= now - before < 10 * _YEAR_S:
                return True
    return False


def _is_near(pattern: re.Pattern[bytes], content: bytes, at: int) -> bool:
    return any(found.start() <= at + 4 and at <= found.end() + 8 for found in pattern.finditer(content))


def _word_at(content: bytes, at: int) -> bytes:
    start = end = at
    while start > 0 and _WORD.match(content[start - 1 : start]):
        start -= 1
    while end < len(content) and _WORD.match(content[end : end + 1]):
        end += 1
    return content[start:end]


def _first_difference(stored: IO[bytes], made: IO[bytes]) -> int | None:
    stored.seek(0)
    made.seek(0)
    offset = 0
    while True:
        one, other = stored.read(_PART_BYTES), made.read(_PART_BYTES)
        if one != other:
            return offset + sum(1 for _ in takewhile(bool, map(operator.eq, one, other)))
        if not one:
            return None
        offset += len(one)


def _around(file: IO[bytes], offset: int) -> bytes:
    file.seek(max(0, offset - _AROUND))
    return file.read(2 * _AROUND)


def _same_lines(stored: IO[bytes], made: IO[bytes]) -> bool:
    sizes = [file.seek(0, os.SEEK_END) for file in (stored, made)]
    if sizes[0] != sizes[1] or sizes[0] > ORDER_BYTES:
        return False
    lines = []
    for file in (stored, made):
        file.seek(0)
        lines.append(Counter(file.read().split(b"\n")))
    return len(lines[0]) > 1 and lines[0] == lines[1]
