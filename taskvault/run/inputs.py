"""The declared inputs of a run: found on disk, and looked at again afterwards.  What they hash to: `input_tree`."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from taskvault.run.patterns import PatternSet, Progress
from taskvault.run.staging import REPLAY_PREFIX
from tvfs.digest import Digest
from tvfs.errors import TaskVaultError


class InputsUnusable(TaskVaultError):
    """The inputs cannot be known, so the run is not stored; the message says why."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A regular file that counts."""

    path: str
    """Relative to the root."""
    executable: bool
    identity: tuple[int, ...]
    """Changes when the content may have: device, inode, size, mtime, ctime."""
    changed_ns: int
    """The later of mtime and ctime."""
    digest: Digest | None = None

    @property
    def written(self) -> tuple[int, ...]:
        """The part of the identity that a new link or mode does not change: all but the ctime."""
        return self.identity[:-1]


@dataclass(frozen=True, slots=True)
class FoundInputs:
    """What the patterns named at one moment, sorted by path."""

    files: tuple[InputFile, ...]
    followed: tuple[InputFile, ...]
    """Files that are no inputs themselves but that a symlink among the inputs leads to, under the path of the link."""
    symlinks: dict[str, str]
    """Path to target."""
    directories: frozenset[str]
    """Directories that were named, or lie in one that was; empty for the root."""
    seen_ns: int = 0
    """When hashing them began, on the coarse clock that stamps files."""


@dataclass(slots=True)
class _Finding:
    root: Path
    inputs: PatternSet
    outputs: PatternSet
    in_outputs: frozenset[int]
    """Input patterns that literally name a path which is an output."""
    files: list[InputFile] = field(default_factory=list)
    symlinks: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    used: set[int] = field(default_factory=set)


def find_inputs(root: Path, inputs: PatternSet, outputs: PatternSet) -> FoundInputs:
    """Return what `inputs` name below `root`; raise `InputsUnusable`.

    What an output pattern names is no input, unless an input pattern without wildcards names that path, or one above it
    that is an output too.  Patterns do not follow symlinks; a link to a file brings that file's content in, a link to a
    directory that is no declared input makes the inputs unusable.
    """
    in_outputs = frozenset(
        number
        for number, pattern in enumerate(inputs.patterns)
        if pattern.literal is not None and not pattern.excludes and outputs.takes(pattern.literal)
    )
    finding = _Finding(root, inputs, outputs, in_outputs)
    try:
        _walk(finding, "", inputs.start(), outputs.start())
        followed = _follow_links(finding)
    except OSError as exc:
        raise InputsUnusable(f"the input {exc.filename!r} cannot be read ({exc.strerror})") from exc
    for number, pattern in enumerate(inputs.patterns):
        if not pattern.excludes and number not in finding.used:
            raise InputsUnusable(f"the input {pattern.text!r} names nothing")
    files = tuple(sorted(finding.files, key=lambda file: file.path))
    return FoundInputs(files, followed, dict(sorted(finding.symlinks.items())), frozenset(finding.directories))


def _walk(finding: _Finding, path: str, progress: Progress, outputs: Progress) -> None:
    if _counts(finding, progress, outputs):
        finding.directories.add(path)
    finding.used |= progress.taken_by
    with os.scandir(finding.root / path) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name.startswith(REPLAY_PREFIX):
            continue
        child = f"{path}/{entry.name}" if path else entry.name
        below, made = finding.inputs.step(progress, entry.name), finding.outputs.step(outputs, entry.name)
        if entry.is_dir(follow_symlinks=False):
            if _may_count_below(finding, below, made):
                _walk(finding, child, below, made)
        elif _counts(finding, below, made):
            finding.used |= below.taken_by
            _add(finding, child, entry)


def _counts(finding: _Finding, progress: Progress, outputs: Progress) -> bool:
    if outputs.taken:
        return not progress.excluded and bool(progress.taken_by & finding.in_outputs)
    return progress.taken


def _may_count_below(finding: _Finding, progress: Progress, outputs: Progress) -> bool:
    if not outputs.taken:
        return finding.inputs.may_have_more(progress)
    waiting = any(progress.positions[number] for number in finding.in_outputs)
    return not progress.excluded and (waiting or bool(progress.taken_by & finding.in_outputs))


def _add(finding: _Finding, path: str, entry: os.DirEntry[str]) -> None:
    if entry.is_symlink():
        finding.symlinks[path] = os.readlink(entry.path)
        return
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise InputsUnusable(f"the input {path!r} is neither a file, a directory nor a symbolic link")
    finding.files.append(_input_file(path, status))


def _input_file(path: str, status: os.stat_result) -> InputFile:
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return InputFile(path, bool(status.st_mode & 0o111), identity, max(status.st_mtime_ns, status.st_ctime_ns))


def _follow_links(finding: _Finding) -> tuple[InputFile, ...]:
    if not finding.symlinks:
        return ()
    known = finding.directories | {file.path for file in finding.files}
    found = (_followed(finding.root, path, known) for path in sorted(finding.symlinks))
    return tuple(file for file in found if file is not None)


def _followed(root: Path, path: str, known: set[str]) -> InputFile | None:
    try:
        status = os.stat(root / path)
    except (FileNotFoundError, NotADirectoryError):
        return None  # it leads nowhere, and its target is in the key
    real = Path(os.path.realpath(root / path))
    inside = str(real.relative_to(root)) if real.is_relative_to(root) else None
    if inside is not None and ("" if inside == "." else inside) in known:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise InputsUnusable(f"the input {path!r} is a symbolic link to {str(real)!r}, which is no declared input")
    return _input_file(path, status)
