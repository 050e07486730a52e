"""Which paths a pattern names.  Pure: paths in, answers out; `taskvault.run.inputs` and `outputs` walk the disk.

Rules, also in docs/guide/first-steps.md:

* A pattern is relative to the root of the run and names whole paths: `src/*.c`, not `*.c`, finds `src/a.c`.
* `*` is any run of characters and `?` one character, never `/`; `[abc]`, `[a-z]` and `[!a]` are one character.
  A leading dot is nothing special.  `**` as a whole part is any number of directories, none included.
* A pattern that names a directory takes everything below it.  `.` is the root itself.  A `/` at the end is allowed.
* A pattern that begins with `!` takes away what it names, and everything below, whatever the order of the patterns.
* A pattern without `*`, `?`, `[` and `!` is literal: it names one path.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tvfs.errors import TaskVaultError

_WILD = re.compile(r"[*?\[]")
_ANY_DIRECTORIES = None
"""Stands for `**` among the compiled parts."""


class PatternInvalid(TaskVaultError):
    """A text is no pattern."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text!r} is not a pattern: {reason}.")
        self.text = text


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern, compiled."""

    text: str
    excludes: bool
    literal: str | None
    """The path that a literal pattern names; empty for the root."""
    parts: tuple[re.Pattern[str] | None, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Return the compiled pattern; raise `PatternInvalid`."""
        excludes = text.startswith("!")
        body = text[1:] if excludes else text
        if not body:
            raise PatternInvalid(text, "it is empty; write . for the whole root")
        if body.startswith("/"):
            raise PatternInvalid(text, "it is absolute; patterns are relative to the root of the run")
        names = [name for name in body.split("/") if name not in ("", ".")]
        if ".." in names:
            raise PatternInvalid(text, "it leaves the root of the run by '..'; choose a higher one with --root")
        literal = None if _WILD.search(body) else "/".join(names)
        return cls(text, excludes, literal, tuple(_compile(name) for name in names))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far each pattern of a set has matched the path of one directory: what a walk carries down."""

    positions: tuple[frozenset[int], ...]
    """Per pattern, the parts that may come next."""
    taken_by: frozenset[int]
    """Patterns that have named this path or one above."""
    excluded: bool
    """The path, or one above, is taken away."""

    @property
    def taken(self) -> bool:
        """The path itself belongs to the set."""
        return bool(self.taken_by) and not self.excluded


class PatternSet:
    """Several patterns together."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Compile; raise `PatternInvalid`."""
        self.patterns = tuple(Pattern.parse(text) for text in texts)
        self.literals = frozenset(p.literal for p in self.patterns if p.literal is not None and not p.excludes)

    def __bool__(self) -> bool:
        return any(not pattern.excludes for pattern in self.patterns)

    @property
    def texts(self) -> list[str]:
        """The patterns as written, sorted, each once: equal sets of patterns have equal texts."""
        return sorted({pattern.text for pattern in self.patterns})

    def start(self) -> Progress:
        """Return the progress at the root."""
        return self._progress([_closure(pattern.parts, {0}) for pattern in self.patterns], frozenset())

    def step(self, progress: Progress, name: str) -> Progress:
        """Return the progress one name further down."""
        moved = [
            _closure(pattern.parts, _moved(pattern.parts, positions, name))
            for pattern, positions in zip(self.patterns, progress.positions, strict=True)
        ]
        return self._progress(moved, progress.taken_by, excluded=progress.excluded)

    def may_have_more(self, progress: Progress) -> bool:
        """Whether a path below this one can belong to the set."""
        if progress.excluded:
            return False
        waiting = zip(self.patterns, progress.positions, strict=True)
        return progress.taken or any(positions and not pattern.excludes for pattern, positions in waiting)

    def takes(self, path: str) -> bool:
        """Whether a path (relative to the root, empty for the root) belongs to the set."""
        progress = self.start()
        for name in path.split("/") if path else ():
            progress = self.step(progress, name)
        return progress.taken

    def _progress(
        self, positions: list[frozenset[int]], taken_by: frozenset[int], *, excluded: bool = False
    ) -> Progress:
        ended = {n for n, at in enumerate(positions) if len(self.patterns[n].parts) in at}
        excluded = excluded or any(self.patterns[n].excludes for n in ended)
        return Progress(tuple(positions), taken_by | {n for n in ended if not self.patterns[n].excludes}, excluded)


def _compile(name: str) -> re.Pattern[str] | None:
    return _ANY_DIRECTORIES if name == "**" else re.compile(fnmatch.translate(name))


def _moved(parts: tuple[re.Pattern[str] | None, ...], positions: Iterable[int], name: str) -> set[int]:
    moved = set()
    for at in positions:
        if at == len(parts):
            continue
        part = parts[at]
        if part is _ANY_DIRECTORIES:
            moved.add(at)
        elif part.match(name):
            moved.add(at + 1)
    return moved


def _closure(parts: tuple[re.Pattern[str] | None, ...], positions: set[int]) -> frozenset[int]:
    # `**` may stand for no directory at all; so `a/**` is the same as `a`, which takes everything below anyway.
    reached = set(positions)
    for at in sorted(positions):
        while at < len(parts) and parts[at] is _ANY_DIRECTORIES:
            at += 1
            reached.add(at)
    return frozenset(reached)
