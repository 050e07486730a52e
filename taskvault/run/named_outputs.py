"""Small files that a run inside another was told to make: kept in its note, for who asked for them may remove them.

ninja reads what a compiler says of dependencies (`-MF x.o.d`) and deletes it at once, long before the run around it
ends and stores what ran inside.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

MOST_BYTES = 1 << 18
"""Of one file: dependencies are a few KiB."""


class NamedOutput(msgspec.Struct, frozen=True):
    """A file as it was when the inner run ended."""

    path: str
    """Absolute."""
    content: bytes
    mode: int
    mtime_ns: int


def named_outputs(arguments: Sequence[str], workdir: Path, root: str, began_ns: int) -> list[NamedOutput]:
    """Return the small files below the root that arguments name and that are not older than the run."""
    found = {}
    for argument in arguments[1:]:
        path = os.path.normpath(workdir / argument) if argument and "\0" not in argument else ""
        if path.startswith(f"{root}/") and path not in found:
            with suppress(OSError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size <= MOST_BYTES and status.st_mtime_ns >= began_ns:
                    content = Path(path).read_bytes()
                    found[path] = NamedOutput(path, content, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
    return list(found.values())


@contextmanager
def in_place_again(outputs: Sequence[NamedOutput]) -> Iterator[None]:
    """Put those that are gone back where they were, for as long as the result is stored; raise `OSError`."""
    put: list[tuple[str, int]] = []
    try:
        for output in outputs:
            directory = os.path.dirname(output.path)
            if os.path.lexists(output.path) or not os.path.isdir(directory):
                continue
            changed_ns = os.lstat(directory).st_mtime_ns
            descriptor = os.open(output.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, output.mode)
            put.append((output.path, changed_ns))
            with open(descriptor, "wb") as file:
                file.write(output.content)
                os.fchmod(file.fileno(), output.mode)
            os.utime(output.path, ns=(output.mtime_ns, output.mtime_ns))
        yield
    finally:
        for path, changed_ns in reversed(put):
            with suppress(OSError):
                os.unlink(path)
                os.utime(os.path.dirname(path), ns=(changed_ns, changed_ns))
