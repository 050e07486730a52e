"""What the declared inputs hash to: one canonical tree of names, content, executable bits and symlinks; no times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from taskvault.run.as_text import text
from taskvault.run.coarse_clock import coarse_now_ns
from taskvault.run.inputs import FoundInputs, InputFile, InputsUnusable, find_inputs
from taskvault.run.patterns import PatternSet
from tvfs.content.trees import build_directory_message
from tvfs.digest import Digest
from tvfs.plugin_api import HashFunction

RACY_NS = 100_000_000
"""A file that changed this shortly before it was hashed may change again with the same times: it is hashed again."""

_BLOCK_BYTES = 1 << 20


def hash_inputs(found: FoundInputs, root: Path, hash_function: HashFunction, executor: Executor) -> FoundInputs:
    """Return the same inputs with the digest of each file; raise `InputsUnusable`."""
    seen_ns = coarse_now_ns()
    hashed = list(executor.map(lambda file: _hashed(file, root, hash_function), (*found.files, *found.followed)))
    count = len(found.files)
    return replace(found, files=tuple(hashed[:count]), followed=tuple(hashed[count:]), seen_ns=seen_ns)


def changed_since(
    before: FoundInputs, root: Path, inputs: PatternSet, outputs: PatternSet, hash_function: HashFunction
) -> str | None:
    """Return what is not now as `hash_inputs` saw it, in a few words, or None: then nothing changed meanwhile."""
    try:
        after = find_inputs(root, inputs, outputs)
        return (
            _changed_file(before, before.files, after.files, root, hash_function)
            or _changed_file(before, before.followed, after.followed, root, hash_function)
            or _first_of(set(before.symlinks.items()) ^ set(after.symlinks.items()))
            or _first_of({(path, "") for path in before.directories ^ after.directories})
        )
    except InputsUnusable as exc:
        return str(exc)


def described(found: FoundInputs) -> dict[str, str]:
    """Return path to what it is, for the history and `tv why`."""
    inputs = {text(path) or ".": "directory" for path in sorted(found.directories)}
    inputs |= {text(path): f"-> {text(target)}" for path, target in found.symlinks.items()}
    inputs |= {f"{text(file.path)} (followed)": str(file.digest) for file in found.followed}
    inputs |= {text(f.path): f"{f.digest}{' executable' if f.executable else ''}" for f in found.files}
    return inputs


def input_root(found: FoundInputs, hash_function: HashFunction) -> Digest:
    """Return the digest of the canonical tree of hashed inputs."""
    tree = _Node()
    for directory in found.directories:
        tree.at(directory)
    for file in found.files:
        assert file.digest is not None, "hash_inputs comes first"
        parent, _, name = file.path.rpartition("/")
        tree.at(parent).files.append((os.fsencode(name), file.digest.hash, file.digest.size, file.executable))
    for path, target in found.symlinks.items():
        parent, _, name = path.rpartition("/")
        tree.at(parent).symlinks.append((os.fsencode(name), os.fsencode(target)))
    return tree.digest(hash_function)


def followed_digest(found: FoundInputs, hash_function: HashFunction) -> str:
    """Return what stands for the content that symlinks lead to outside the inputs; empty if there is none."""
    if not found.followed:
        return ""
    lines = "".join(f"{text(file.path)}\0{file.digest}\0{file.executable}\n" for file in found.followed)
    return hash_function.digest(lines.encode()).hex()


def digest_file(path: Path, hash_function: HashFunction) -> Digest:
    """Return the digest of a file's content; raise `OSError`."""
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        if os.fstat(descriptor).st_size <= _BLOCK_BYTES:
            content = b"".join(_blocks(descriptor))
            return Digest(hash_function.name, hash_function.digest(content), len(content))
        hasher, length = hash_function.hasher(), 0
        for block in _blocks(descriptor):
            hasher.update(block)
            length += len(block)
        return Digest(hash_function.name, hasher.digest(), length)


class _Node:
    """A directory of the tree being made."""

    __slots__ = ("directories", "files", "symlinks")

    def __init__(self) -> None:
        self.files: list[tuple[bytes, bytes, int, bool]] = []
        self.symlinks: list[tuple[bytes, bytes]] = []
        self.directories: dict[str, _Node] = {}

    def at(self, path: str) -> _Node:
        node = self
        for name in path.split("/") if path else ():
            node = node.directories.setdefault(name, _Node())
        return node

    def digest(self, hash_function: HashFunction) -> Digest:
        below = [(os.fsencode(name), node.digest(hash_function)) for name, node in self.directories.items()]
        children = [(name, digest.hash, digest.size) for name, digest in below]
        encoded = build_directory_message(self.files, children, self.symlinks)
        return Digest(hash_function.name, hash_function.digest(encoded), len(encoded))


def _changed_file(
    before: FoundInputs,
    old: tuple[InputFile, ...],
    new: tuple[InputFile, ...],
    root: Path,
    hash_function: HashFunction,
) -> str | None:
    now = {file.path: file for file in new}
    for file in old:
        other = now.pop(file.path, None)
        if other is None or other.executable != file.executable:
            return repr(file.path)
        if other.written != file.written:
            return repr(file.path)  # whatever it holds now: it may have held something else meanwhile
        certain = other.identity == file.identity and file.changed_ns < before.seen_ns - RACY_NS
        if not certain and _hashed(other, root, hash_function).digest != file.digest:
            return repr(file.path)
    return repr(min(now)) if now else None


def _first_of(changed: set[tuple[str, str]]) -> str | None:
    return repr(min(changed)[0]) if changed else None


def _hashed(file: InputFile, root: Path, hash_function: HashFunction) -> InputFile:
    try:
        return replace(file, digest=digest_file(root / file.path, hash_function))
    except OSError as exc:
        raise InputsUnusable(f"the input {file.path!r} cannot be read ({exc.strerror})") from exc


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, _BLOCK_BYTES):
        yield block
