"""The system calls with which processes change files below a directory, as strace saw them begin and end.

Everything below is of one recording: which process called does not matter, only what was done, to which file, and in
which order.  A call that this does not know and that could change a file is an error, never passed over.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
SYNCS = ("fsync", "fdatasync")
NAMES = (
    "open", "openat", "creat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat",
    "symlink", "symlinkat", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
LENGTHS = ("ftruncate", "truncate", "fallocate")
NOT_UNDERSTOOD = (
    "sync_file_range", "syncfs", "sync", "mmap", "msync", "copy_file_range", "sendfile", "splice", "io_uring_setup",
    "io_uring_enter", "openat2",
)  # fmt: skip
"""Recorded too: none of them may be used to change a file, or the recording would not be all there is."""
LONGEST_BYTES = 8 << 20

_HEX = rb"(?:\\x[0-9a-f]{2})*"
_STRING = re.compile(rb'"([\\x0-9a-f]*)"(\.\.\.)?')
_DESCRIPTOR = re.compile(rb"(?:AT_FDCWD|-?\d+)<([\\x0-9a-f]*)>(\(deleted\))?")
_PLACE = re.compile(rb'(?:(?:AT_FDCWD|\d+)<([\\x0-9a-f]*)>(?:\(deleted\))?, )?"([\\x0-9a-f]*)"')
_LINE = re.compile(rb"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(rb"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_UNFINISHED = b" <unfinished ...>"
_RESULT = re.compile(rb"\) += (-?\d+)[^=]*$")


class RecordingIncomplete(AssertionError):
    """Something was done to a file that the recording cannot tell."""


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded."""

    name: str
    paths: tuple[str, ...]
    """Those of descriptors first, then those that were named; absolute."""
    content: bytes
    numbers: tuple[str, ...]
    """The arguments that are neither strings nor descriptors, as they were written."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A call begins, or ends."""

    call: Call
    number: int
    """Of the call: a beginning and an end belong together."""
    ends: bool


def record(command: Sequence[str], to: Path, **options: object) -> None:
    """Run a command below strace; raise if it fails."""
    traced = ",".join((*WRITES, *SYNCS, *NAMES, *LENGTHS, *(f"?{name}" for name in NOT_UNDERSTOOD)))
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", str(LONGEST_BYTES), "-o", str(to)]
    subprocess.run([*strace, "-e", "signal=none", "-e", f"trace={traced}", *command], check=True, **options)  # type: ignore[call-overload]


def moments(trace: Path, below: Path) -> Iterator[Moment]:
    """Yield what was done to files below a directory, in order; raise `RecordingIncomplete`."""
    wanted = _escaped(str(below))
    unfinished: dict[bytes, tuple[bytes, int]] = {}
    with trace.open("rb") as lines:
        texts = list(_whole_calls(lines, wanted, unfinished))
    ended: dict[int, Call] = {}
    for number, text, ends in texts:
        if ends:
            call = _understood(text, below)
            if call is not None:
                ended[number] = call
    for number, _, ends in texts:
        if number in ended:
            yield Moment(ended[number], number, ends)


def _whole_calls(
    lines: Iterator[bytes] | object, wanted: bytes, unfinished: dict[bytes, tuple[bytes, int]]
) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (number, text, whether it ends) of each call's beginning and end; the text is there at the end."""
    for number, line in enumerate(lines):  # type: ignore[arg-type]
        if wanted not in line and b"resumed>" not in line[:60]:
            continue
        matched = _LINE.match(line.rstrip(b"\n"))
        assert matched is not None, line[:200]
        process, text = matched[1], matched[2]
        resumed = _RESUMED.match(text)
        if resumed is not None:
            begun = unfinished.pop(process, None)
            if begun is not None:
                yield begun[1], begun[0] + resumed[2], True
        elif text.endswith(_UNFINISHED):
            unfinished[process] = (text[: -len(_UNFINISHED)], number)
            yield number, b"", False
        else:
            yield number, b"", False
            yield number, text, True


def _understood(text: bytes, below: Path) -> Call | None:
    name, _, rest = text.partition(b"(")
    result = _RESULT.search(rest)
    if result is None or int(result[1]) < 0:
        return None
    arguments = rest[: result.start()]
    call = name.decode()
    strings = _STRING.findall(arguments)
    if any(cut for _, cut in strings):
        raise RecordingIncomplete(f"{call} has more bytes than were recorded")
    plain = _STRING.sub(b"", arguments)
    descriptors = [_unescaped(path).decode() for path, gone in _DESCRIPTOR.findall(plain) if not gone]
    numbers = tuple(part.decode().strip() for part in _DESCRIPTOR.sub(b"", plain).split(b",") if part.strip())
    if call in WRITES:
        return _write(call, descriptors, [_unescaped(each) for each, _ in strings], int(result[1]), numbers)
    paths = _places(arguments) if call in NAMES or call == "truncate" else descriptors
    inside = tuple(path for path in paths if path == str(below) or path.startswith(f"{below}/"))
    if not inside:
        return None
    if call in NOT_UNDERSTOOD and not (call == "mmap" and ("PROT_WRITE" not in numbers[0] or "PRIVATE" in numbers[1])):
        raise RecordingIncomplete(f"{call} may change {inside}")
    return Call(call, inside, b"", numbers)


def _places(arguments: bytes) -> list[str]:
    """Return the paths that are named, each with the directory that it is below."""
    return [
        str(Path(_unescaped(directory).decode()) / _unescaped(name).decode())
        for directory, name in _PLACE.findall(arguments)
    ]


def _write(call: str, descriptors: list[str], named: list[bytes], length: int, numbers: tuple[str, ...]) -> Call | None:
    if not descriptors:  # a file that has no name any more
        return None
    return Call(call, (descriptors[0],), b"".join(named)[:length], numbers)


def _escaped(path: str) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in path.encode())


def _unescaped(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())
