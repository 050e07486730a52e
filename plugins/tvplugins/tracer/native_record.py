"""Reads the record that the native tracer writes; native/shared.h describes it."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from tvfs.plugin_api.tracer import Before
from tvplugins.tracer.calls import AT_EMPTY_PATH, SIGNATURES, Call, Called, Clone, Exec, Exit, Place, Raw, Trouble

_HEAD = struct.Struct("=IHHiIQqQ")
_BEFORE = struct.Struct("=IIIIQq")
_ENDS = struct.Struct("=QQ8xQ")
"""Where the entries end, where they ended when the record was closed, where there is no more room for them."""
FIRST_ENTRY = 65536
_ALIGNED = 8
_CLONED, _EXECUTED, _ENDED, _TROUBLE, _END, _UNKNOWN = range(1001, 1007)
_UNREADABLE = 0xFFFF
_MOST_TASKS = 1 << 22
"""The kernel's own limit on their numbers."""
_NO_PATH_MEANS_DESCRIPTOR = frozenset({"utimensat", "futimesat"})


class NativeRecord:
    """A record, whole; what is damaged or missing in it is a `Trouble`."""

    def __init__(self, record: bytes | mmap.mmap, names: Mapping[int, str]) -> None:
        """`names` are those of the numbers of system calls."""
        self._record = record
        self._names = names
        last, final, room = _ENDS.unpack_from(record) if len(record) >= FIRST_ENTRY else (0, 0, 0)
        self.end = final or last
        """Where the last entry ends."""
        self.overflows = self.end > min(room, len(record))
        """Whether not all that happened is in it; then nothing of it is read."""

    def events(self) -> Iterator[Raw]:
        """Yield what happened."""
        return self.events_at(self._positions())

    def events_at(self, positions: Iterable[int], number: Callable[[], int] = lambda: 0) -> Iterator[Raw]:
        """Yield the entries at the positions; where what an entry tells of a call has a `number`, it is read once."""
        if self.overflows:
            yield Trouble("more happened than the tracer's record has room for")
            positions = ()
        known: dict[int, Call | Trouble] = {}
        for position in positions:
            length, kind, count, tid, _, at_ns, result, flags = _HEAD.unpack_from(self._record, position)
            call = known.get(number())
            if call is None:
                strings = _strings(self._record[position + _HEAD.size : position + length], count)
                if kind not in self._names:
                    if kind == _END:
                        return
                    yield _event(kind, tid, at_ns, result, flags, strings)
                    continue
                call = _call(self._names[kind], result, flags, strings)
                if number():
                    known[number()] = call
            yield Called(tid, at_ns, call) if isinstance(call, Call) else call
        yield Trouble("the tracer ended before the command did, or while something was still running")

    def _positions(self) -> Iterator[int]:
        position = FIRST_ENTRY
        while position + _HEAD.size <= self.end:
            length = _HEAD.unpack_from(self._record, position)[0]
            if length < _HEAD.size or position + length > self.end:
                return
            yield position
            position += length


def _event(kind: int, tid: int, at_ns: int, result: int, flags: int, strings: list[bytes | None]) -> Raw:
    if kind == _CLONED and 0 < result < _MOST_TASKS:
        return Clone(tid, at_ns, result, flags)
    if kind == _ENDED:
        return Exit(tid, at_ns, result)
    if kind == _EXECUTED:
        return _exec(tid, at_ns, result, flags, strings)
    if kind == _UNKNOWN:
        return Called(tid, at_ns, Call(f"number {flags}", result))
    if kind == _TROUBLE and strings:
        return Trouble(_text(strings[0]))
    return Trouble("the tracer wrote something that is not understood")


def _strings(body: bytes, count: int) -> list[bytes | None]:
    strings: list[bytes | None] = []
    at, end = 0, len(body)
    for _ in range(count):
        if at + 2 > end:
            return [None] * count
        length = body[at] | body[at + 1] << 8
        at += 2
        if length == _UNREADABLE:
            strings.append(None)
            continue
        strings.append(body[at : at + length])
        at += length
    if not at <= end < at + _ALIGNED:
        return [None] * count
    return strings


def _call(name: str, result: int, flags: int, strings: list[bytes | None]) -> Call | Trouble:
    signature = SIGNATURES.get(name)
    if signature is None:
        return Call(name, result)
    outcome = strings[0]
    if signature.address is not None:
        return Call(name, result, outcome=_address(outcome))
    count = len(signature.at)
    if len(strings) < 1 + 2 * count:
        return Trouble(f"the tracer wrote a call of {name} that is not understood")
    before = strings[1 + 2 * count :]
    places = []
    for number in range(count):
        path, base = strings[1 + 2 * number], strings[2 + 2 * number]
        there = _before(before[number]) if number < len(before) else None
        places.append(Place(None if path is None else _text(path), _text(base) if base else "", there))
    flags |= signature.implied
    if name in _NO_PATH_MEANS_DESCRIPTOR and places[0].path == "":
        flags |= AT_EMPTY_PATH
    return Call(name, result, flags, tuple(places), _text(outcome) if outcome else "")


def _before(raw: bytes | None) -> Before | None:
    if raw is None or len(raw) != _BEFORE.size:
        return None
    mode, links, owner, group, size, mtime_ns = _BEFORE.unpack(raw)
    return Before(mode, size, mtime_ns, links, owner, group)


def _exec(tid: int, at_ns: int, former: int, flags: int, strings: list[bytes | None]) -> Raw:
    if len(strings) != 5:
        return Trouble("a program was executed without a call that was seen")
    program, path, base, header, given = strings
    place = Place(None if path is None else _text(path), _text(base))
    arguments = None if given is None else tuple(_text(given).removesuffix("\0").split("\0"))
    return Exec(tid, at_ns, former, place, flags, _text(program), header or b"", arguments)


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode("utf-8", "surrogateescape")


def _address(raw: bytes | None) -> str:
    if raw is None:
        return "other unreadable"
    family = int.from_bytes(raw[:2], "little")
    if family == 0:
        return ""
    if family == 1:
        path = raw[2:]
        # A name without a file begins with a zero byte and has its length; a path ends at one.
        named = path and path[0]
        return f"local {_text(path.partition(bytes(1))[0])}" if named else f"local @{_text(path[1:])}"
    port = int.from_bytes(raw[2:4], "big")
    if family == 2 and len(raw) >= 8:
        return f"internet {IPv4Address(raw[4:8])}:{port}"
    if family == 10 and len(raw) >= 24:
        return f"internet [{IPv6Address(raw[8:24])}]:{port}"
    return f"other {family}"
