"""Reads what `strace -f -y -X raw -xx -ttt` writes.  Strict: a line that is not understood is a `Trouble`.

Strings and paths are hexadecimal and constants are numbers, so no name of a file can be taken for strace's own text.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import msgspec

from tvplugins.tracer.calls import (
    CLONE_THREAD,
    DELETED,
    FORBIDDEN,
    RESOLVE_IN_ROOT,
    SIGNATURES,
    Call,
    Called,
    Clone,
    Exec,
    Exit,
    Place,
    Raw,
    Signature,
    Trouble,
)

MAKING_TASKS = {"clone": 0, "clone3": 0, "fork": 0, "vfork": 0}
"""Calls that make tasks; their flags are in the arguments, if they have any."""

_LINE = re.compile(r"(\d+) +(\d+)\.(\d{6}) (.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*?)\) += (.*)", re.DOTALL)
_UNFINISHED = re.compile(r"(\w+)\((.*?) ?<(?:unfinished|pid changed to \d+) \.\.\.>\Z", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_RESULT = re.compile(
    r"(?:\? (?P<restart>ERESTART\w+) \(.*\)|-1 (?P<error>E\w+) \(.*\)"
    r"|(?P<number>-?\d+|0x[0-9a-f]+)(?:<(?P<path>[^>]*)>(?P<gone>\(deleted\))?)?(?: \(.*\)| => .*)?)"
)
_ENDED = re.compile(
    r"\+\+\+ (?:exited with (?P<status>\d+)|killed by (?P<signal>SIG\w+)(?P<core> \(core dumped\))?) \+\+\+"
)
_SUPERSEDED = re.compile(r"\+\+\+ superseded by execve in pid (\d+) \+\+\+")
_STOPPED = re.compile(r"--- stopped by SIG\w+ ---|--- SIG\w+ \{.*\} ---")
_ARGUMENT = re.compile(r'"(?:\\x[0-9a-f]{2})*"(?:\.\.\.)?|/\*.*?\*/|[][{}()]|, |[^][{}(),"/]+|[,/]', re.DOTALL)
_DESCRIPTOR = re.compile(r"(-?\d+)(?:<([^>]*)>(\(deleted\))?)?")
_HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_ADDRESS = re.compile(r"\{sa_family=[^{}]*\}")
_NO_ADDRESS = ("NULL", "msg_name=NULL")


class NotUnderstood(ValueError):
    """A line of strace has a form that this parser does not know."""


class StraceOutput:
    """Turns lines into events, in the order in which calls returned."""

    def __init__(self, command: int) -> None:
        self._rest = ""
        self._unfinished: dict[int, tuple[str, str, int]] = {}
        self._former: dict[int, int] = {}
        self._made = {command}
        self._cut_short: dict[int, Clone] = {}
        """By maker: a task that it may have made in a call that never returned, without its number."""
        self.alive = {command}
        """Tasks whose end has not been read yet."""

    def feed(self, text: str) -> Iterator[Raw]:
        """Take what strace has written since; the last line may be without its end."""
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        for line in lines:
            try:
                yield from self._line(line)
            except (NotUnderstood, ValueError, IndexError, KeyError, AttributeError) as exc:
                yield Trouble(f"strace wrote a line that is not understood ({exc}): {line[:120]!r}")

    def finish(self) -> Iterator[Raw]:
        """Say what is missing at the end."""
        if self._rest:
            yield Trouble("strace ended in the middle of a line")
        for tid in list(self._cut_short):
            yield from self._not_made(tid)
        for name, _, _ in self._unfinished.values():
            yield Trouble(f"a call of {name} did not return")

    def _line(self, line: str) -> Iterator[Raw]:
        head = _LINE.fullmatch(line)
        if head is None:
            raise NotUnderstood("no process and time")
        tid, at_ns, text = int(head[1]), int(head[2]) * 10**9 + int(head[3]) * 1000, head[4]
        self.alive.add(tid)
        if found := _CALL.fullmatch(text):
            yield from self._call(tid, at_ns, found[1], found[2], found[3])
        elif found := _UNFINISHED.fullmatch(text):
            self._unfinished[tid] = (found[1], found[2], at_ns)
        elif found := _RESUMED.fullmatch(text):
            yield from self._resumed(tid, at_ns, found[1], found[2])
        elif found := _ENDED.fullmatch(text):
            yield from self._ended(tid, at_ns, found)
        elif found := _SUPERSEDED.fullmatch(text):
            former = int(found[1])
            yield from self._not_made(tid) if former in self._made else self._made_at_last(tid, former)
            self.alive.discard(former)
            self._former[tid] = former
            self._unfinished[tid] = self._unfinished.pop(former)
        elif " mode. ]" in text and text.startswith("[ Process PID="):
            yield Trouble("a program for another instruction set ran, whose calls are not known")
        elif not _STOPPED.fullmatch(text):
            raise NotUnderstood("no call and no event")

    def _made_at_last(self, tid: int, child: int) -> Iterator[Raw]:
        """Only a thread takes a process over; what made it was cut short by that.  Anything else: at the end."""
        if tid in self._cut_short and self._cut_short[tid].flags & CLONE_THREAD:
            yield msgspec.structs.replace(self._cut_short.pop(tid), child=child)

    def _not_made(self, tid: int) -> Iterator[Raw]:
        if self._cut_short.pop(tid, None):
            yield Trouble("a process ended in a call that makes processes")

    def _ended(self, tid: int, at_ns: int, found: re.Match[str]) -> Iterator[Raw]:
        self.alive.discard(tid)
        yield from self._not_made(tid)
        if tid in self._unfinished:
            name = self._unfinished.pop(tid)[0]
            yield Trouble(f"a process ended while a call of {name} had not returned")
        yield Exit(tid, at_ns, int(found["status"]) if found["status"] else -_signal(found["signal"]))

    def _resumed(self, tid: int, at_ns: int, name: str, tail: str) -> Iterator[Raw]:
        before, arguments, began_ns = self._unfinished.pop(tid, ("", "", 0))
        if before != name:
            raise NotUnderstood("resumed without having begun")
        found = _CALL.fullmatch(f"{name}({arguments}{tail}")
        if found is None and name.startswith("exec") and tid in self._former:
            found = _CALL.fullmatch(f"{name}({arguments}) = 0")
        if found is None:
            raise NotUnderstood("resumed in another form")
        if name in MAKING_TASKS:
            # The child may have ended since: it was made at some time after the call began.
            at_ns = began_ns
        # After a thread has taken its process over, strace 6.1 shows some error, but it did not fail.
        yield from self._call(tid, at_ns, name, found[2], "0" if tid in self._former else found[3])

    def _call(self, tid: int, at_ns: int, name: str, arguments: str, ended: str) -> Iterator[Raw]:
        if ended == "?" and name in MAKING_TASKS:
            self._cut_short[tid] = Clone(tid, at_ns, 0, _clone_flags(name, arguments))
            return
        if ended == "?":
            yield Trouble(f"a process ended in a call of {name}")
            return
        result = _RESULT.fullmatch(ended)
        if result is None:
            raise NotUnderstood("its result")
        if result["restart"]:
            # Nothing happened yet: the call is made again, and then reported.
            return
        value = -getattr(errno, result["error"]) if result["error"] else int(result["number"], 0)
        if name in MAKING_TASKS:
            if value > 0:
                self._made.add(value)
                yield Clone(tid, at_ns, value, _clone_flags(name, arguments))
            return
        signature = SIGNATURES.get(name)
        if signature is None:
            if name not in FORBIDDEN:
                raise NotUnderstood("a call that was not asked for")
            yield Called(tid, at_ns, Call(name, value))
            return
        outcome = _path(result["path"], result["gone"]) if result["path"] and value >= 0 else ""
        call = Call(name, value, outcome=outcome)
        yield from self._known_call(tid, at_ns, call, signature, _split(arguments))

    def _known_call(self, tid: int, at_ns: int, call: Call, signature: Signature, given: list[str]) -> Iterator[Raw]:
        places = tuple(
            Place(
                "" if path is None else _string(given[path]),
                "" if descriptor is None else _base(given[descriptor]),
            )
            for descriptor, path in signature.at
        )
        if call.name in ("futimesat", "utimensat") and given[1] == "NULL":
            places = (Place("", places[0].base),)
        flags = signature.implied
        if signature.flags is not None:
            flags |= self._flags(call, given, signature.flags)
        if call.name in ("futimesat", "utimensat") and places[0].path == "":
            flags |= 0x1000
        if call.name == "openat2" and call.result >= 0:
            resolve = re.search(r"resolve=(0x[0-9a-f]+)", given[2])
            if resolve and int(resolve[1], 16) & RESOLVE_IN_ROOT:
                yield Trouble("a process opened a file below a root of its own (openat2)")
        if signature.action == "execute" and call.result == 0:
            yield Exec(tid, at_ns, self._former.pop(tid, tid), places[0], flags)
        elif signature.address is not None:
            for outcome in _addresses(given[signature.address]):
                yield Called(tid, at_ns, Call(call.name, call.result, outcome=outcome))
        else:
            yield Called(tid, at_ns, Call(call.name, call.result, flags, places, call.outcome))

    def _flags(self, call: Call, given: list[str], number: int) -> int:
        if call.name == "openat2":
            found = re.match(r"\{flags=(0x[0-9a-f]+|\d+)", given[number])
            if found is None and call.result >= 0:
                raise NotUnderstood("no flags")
            return int(found[1], 0) if found else 0
        # A part that stands for 0 may be empty, as in `|0x900`.
        return sum(_number(part) for part in given[number].split("|") if part)


def _clone_flags(name: str, arguments: str) -> int:
    # The signal at the end is decimal and follows the flags, if there are any: 0x1200000|17, or 17.
    flags = re.search(r"flags=(?:(0x[0-9a-f]+)|\d)", arguments)
    if flags is None and name.startswith("clone"):
        raise NotUnderstood("no flags")
    return int(flags[1], 16) if flags and flags[1] else 0


def _split(arguments: str) -> list[str]:
    """Cut at the commas that are not inside of brackets."""
    if "{" not in arguments and "[" not in arguments:
        return arguments.split(", ")
    parts: list[str] = []
    current: list[str] = []
    depth = end = 0
    for token in _ARGUMENT.finditer(arguments):
        if token.start() != end:
            raise NotUnderstood("its arguments")
        end = token.end()
        text = token[0]
        if text in ("[", "{", "("):
            depth += 1
        elif text in ("]", "}", ")"):
            depth -= 1
        elif text == ", " and not depth:
            parts.append("".join(current))
            current = []
            continue
        current.append(text)
    if end != len(arguments) or depth:
        raise NotUnderstood("its arguments")
    parts.append("".join(current))
    return parts


def _string(text: str) -> str | None:
    found = _HEX.fullmatch(text)
    if found:
        return _unescaped(found[1])
    if text == "NULL" or re.fullmatch(r"0x[0-9a-f]+", text):
        return None
    raise NotUnderstood("a path")


def _unescaped(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode("utf-8", "surrogateescape")


def _path(text: str, gone: str | None) -> str:
    return _unescaped(text) + (DELETED if gone else "")


def _base(text: str) -> str:
    found = _DESCRIPTOR.fullmatch(text)
    if found is None:
        raise NotUnderstood("a descriptor")
    return _path(found[2], found[3]) if found[2] else ""


def _addresses(text: str) -> Iterator[str]:
    found = _ADDRESS.findall(text)
    if not found and "sa_family" in text:
        raise NotUnderstood("an address")
    for address in found:
        yield _address(address)


def _address(text: str) -> str:
    fields = dict(re.findall(r'(\w+)=(@?"[^"]*"|[^,}]*)', text))
    family = int(fields["sa_family"], 16)
    if family == 0:
        return ""
    if family == 1:
        path = fields.get("sun_path", "@")
        return f"local {'@' if path.startswith('@') else ''}{_string(path.lstrip('@')) if path != '@' else ''}"
    if family in (2, 10):
        kind, port, host = ("", "sin_port", "sin_addr") if family == 2 else ("6", "sin6_port", "sin6_addr")
        number = int.from_bytes(_raw(fields[port]), "big")
        raw = _raw(fields[host])
        return f"internet {IPv4Address(raw)}:{number}" if not kind else f"internet [{IPv6Address(raw)}]:{number}"
    return f"other {family}"


def _number(text: str) -> int:
    return int(text, 8 if text.startswith("0") and text.isdigit() else 0)


def _signal(name: str) -> int:
    if name.startswith("SIGRT_"):
        # The kernel's first, of which the C library keeps two to itself.
        return 32 + int(name.removeprefix("SIGRT_"))
    return int(signal.Signals[name])


def _raw(text: str) -> bytes:
    found = _HEX.fullmatch(text)
    if found is None:
        raise NotUnderstood("an address")
    return bytes.fromhex(found[1].replace("\\x", ""))
