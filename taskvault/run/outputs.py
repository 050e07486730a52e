"""What a run made: found by its output patterns, and searched for the path of the root."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskvault.run.compressed_sections import SectionUnreadable, compressed_sections, may_have_sections
from taskvault.run.patterns import PatternInvalid, PatternSet, Progress
from tvfs.errors import TaskVaultError

COMPRESSED = (
    b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh", b"PK\x03\x04", b"\x04\x22\x4d\x18",
    b"7z\xbc\xaf\x27\x1c",
)  # fmt: skip
"""How files begin that cannot be searched: gzip, zstd, xz, bzip2, zip, lz4, 7z."""

_BLOCK_BYTES = 1 << 20


class OutputsUnusable(TaskVaultError):
    """What the run made cannot be stored; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class Output:
    """One thing that a run made: all of a directory, or one file or symlink."""

    path: str
    """Relative to the root."""
    is_directory: bool


def parse_outputs(texts: Iterable[str]) -> PatternSet:
    """Return output patterns; raise `PatternInvalid`, also for the root itself, which is never replaced."""
    patterns = PatternSet(texts)
    for pattern in patterns.patterns:
        if not pattern.excludes and all(part is None for part in pattern.parts):
            raise PatternInvalid(pattern.text, "an output cannot be the whole root; name the directories that are made")
    return patterns


def find_outputs(root: Path, patterns: PatternSet, input_paths: Iterable[str]) -> list[Output]:
    """Return what the patterns name now, a directory before and instead of what is below it.

    Raise `OutputsUnusable` if a pattern names nothing, a special file, or a directory that also holds inputs.
    """
    found: list[Output] = []
    used: set[int] = set()
    try:
        _find_below(root, "", patterns, patterns.start(), found, used)
    except OSError as exc:
        raise OutputsUnusable(f"the output {exc.filename!r} cannot be read ({exc.strerror})") from exc
    for number, pattern in enumerate(patterns.patterns):
        if not pattern.excludes and number not in used:
            raise OutputsUnusable(f"the output {pattern.text!r} was not made")
    directories = tuple(f"{output.path}/" for output in found if output.is_directory)
    inside = min((path for path in input_paths if path.startswith(directories)), default=None)
    if inside is not None:
        raise OutputsUnusable(f"the input {inside!r} lies in an output directory, which a replay would replace")
    return found


def present(root: Path, patterns: PatternSet) -> dict[Path, tuple[int, ...]]:
    """Return the files and symlinks that the patterns name, with what changes when they are written or replaced.

    Raise `OutputsUnusable`.
    """
    found: list[Output] = []
    try:
        _find_below(root, "", patterns, patterns.start(), found, set())
        return {place: _identity(place) for place in _files(root, found)}
    except OSError as exc:
        raise OutputsUnusable(f"the output {exc.filename!r} cannot be read ({exc.strerror})") from exc


def check_made(root: Path, outputs: Sequence[Output], before: Mapping[Path, tuple[int, ...]]) -> None:
    """Raise `OutputsUnusable` if one of the outputs is what was `present` before: the run did not make it."""
    for place in _files(root, outputs):
        if place in before and before[place] == _identity(place):
            path = str(place.relative_to(root))
            raise OutputsUnusable(
                f"the output {path!r} was there before and the command left it as it was; start without it"
            )


def holds_path(paths: Sequence[bytes], root: Path, outputs: Sequence[Output]) -> bool:
    """Whether a file among the outputs holds one of `paths`, or cannot be searched: the result is right only here."""
    return any(_file_holds(paths, place) for place in _files(root, outputs))


def stream_holds(paths: Sequence[bytes], blocks: Iterable[bytes]) -> bool:
    """Whether one of `paths` occurs in a content that comes in blocks."""
    return bool(held_by_blocks(frozenset(paths), blocks, enough=1))


def held_by_blocks(texts: frozenset[bytes], blocks: Iterable[bytes], *, enough: int | None = None) -> set[bytes]:
    """Return which of `texts` occur in a content that comes in blocks; no more once there are `enough`."""
    keep = max((len(text) for text in texts), default=1) - 1
    found: set[bytes] = set()
    tail = b""
    for block in blocks:
        window = tail + block
        found |= {text for text in texts - found if text in window}
        if len(found) >= (len(texts) if enough is None else enough):
            break
        tail = window[-keep:] if keep else b""
    return found


def held_by_file(texts: frozenset[bytes], place: Path) -> tuple[set[bytes], bool]:
    """Return which of `texts` a file or the target of a symlink holds, and whether it cannot be searched."""
    if place.is_symlink():
        target = os.fsencode(os.readlink(place))
        return {text for text in texts if text in target}, False
    if not stat.S_ISREG(os.lstat(place).st_mode):
        # To open a pipe is to wait for whoever writes to it.
        return set(), True
    with open(place, "rb", buffering=0) as file:
        start = file.read(_BLOCK_BYTES) or b""
        if start.startswith(COMPRESSED):
            return set(), True
        found = held_by_blocks(texts, _with_rest(start, file.fileno()))
        if may_have_sections(start):
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
                try:
                    for section in compressed_sections(content):
                        found |= held_by_blocks(texts, [section])
                except SectionUnreadable:
                    return found, True
        return found, False


def places_of(root: Path, outputs: Sequence[Output]) -> Iterator[Path]:
    """Yield everything that was made, directories before what is in them."""
    for output in outputs:
        place = root / output.path
        yield place
        if output.is_directory:
            for directory, directories, names in os.walk(place):
                yield from (Path(directory, name) for name in (*directories, *names))


def _find_below(
    root: Path, path: str, patterns: PatternSet, progress: Progress, found: list[Output], used: set[int]
) -> None:
    with os.scandir(root / path) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        child = f"{path}/{entry.name}" if path else entry.name
        below = patterns.step(progress, entry.name)
        is_directory = entry.is_dir(follow_symlinks=False)
        if below.taken:
            used |= below.taken_by
        if is_directory and below.taken and not _excludes_below(patterns, below):
            _check_below(root / child)
            found.append(Output(child, True))
        elif is_directory:
            if patterns.may_have_more(below):
                _find_below(root, child, patterns, below, found, used)
        elif below.taken:
            _check_kind(entry)
            found.append(Output(child, False))


def _excludes_below(patterns: PatternSet, progress: Progress) -> bool:
    waiting = zip(patterns.patterns, progress.positions, strict=True)
    return any(pattern.excludes and positions for pattern, positions in waiting)


def _check_below(directory: Path) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _check_below(Path(entry.path))
            else:
                _check_kind(entry)


def _check_kind(entry: os.DirEntry[str]) -> None:
    if not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
        raise OutputsUnusable(f"the output {entry.path!r} is neither a file, a directory nor a symbolic link")


def _files(root: Path, outputs: Sequence[Output]) -> Iterable[Path]:
    for output in outputs:
        place = root / output.path
        if not output.is_directory:
            yield place
            continue
        for directory, directories, names in os.walk(place):
            yield from (Path(directory, name) for name in names)
            # A link to a directory is listed with the directories.
            yield from (link for name in directories if (link := Path(directory, name)).is_symlink())


def _identity(place: Path) -> tuple[int, ...]:
    status = os.lstat(place)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _file_holds(paths: Sequence[bytes], place: Path) -> bool:
    found, unsearchable = held_by_file(frozenset(paths), place)
    return bool(found) or unsearchable


def _with_rest(start: bytes, descriptor: int) -> Iterable[bytes]:
    block = start
    while block:
        yield block
        block = os.read(descriptor, _BLOCK_BYTES)
