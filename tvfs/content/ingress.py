"""Takes a foreign REAPI tree, whose `Directory` blobs are in the vault, and makes it attachable.

Everything is checked once: the messages, that files are there with the sizes that are told, depth and counts.  What
comes out is the tree index of every directory (docs/design/on-disk-format.md §7), after which the tree is as good as
one of our own; a directory that has an index already is not looked at again, so content that is shared costs once
however often it is named.  Memory does not grow with the tree: rows are committed as they come, children first, and a
message that is long lies in a file while it is read.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from tvfs.content.attributes import UNKNOWN, OwnAttributes
from tvfs.content.directory_message import (
    Encoded,
    Survey,
    TreeDirectory,
    TreeFile,
    TreeInvalid,
    TreeLimits,
    TreeNode,
    merged,
    survey,
)
from tvfs.content.index_writer import IndexWriter, Row, TreeTooLarge
from tvfs.content.pending_children import PendingChildren
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import DEFAULT_DIRECTORY_MODE
from tvfs.content.tree_index import DIRECTORY, REGULAR, SYMLINK, IndexEntry, TreeIndexRoot, tree_index_id
from tvfs.digest import Digest
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import HashFunction

INLINE_BYTES = 4 << 10
"""A message up to here, some 40 entries, is read at once; a longer one in a thread, piece by piece."""
IN_MEMORY_BYTES = 1 << 20
"""A longer message lies in a file."""
READ_BYTES = 1 << 20
ROWS_IN_ONE_COMMIT = 512
ROW_BYTES_IN_ONE_COMMIT = 1 << 20
PAGES_AT_A_TIME = 4
"""Made by a thread before the owner is asked anything: about 20 ms of work that others run beside."""
T = TypeVar("T")

SHOWN_NAMES = 6
"""Of a path in a message; a thousand levels would fill a screen."""


@dataclass(frozen=True, slots=True)
class IngressLimits:
    """What a foreign tree may be at most."""

    directory: TreeLimits = field(default_factory=TreeLimits)
    """One `Directory` message."""
    max_depth: int = 1000
    """Levels, the root included: paths have at most 4,096 bytes, and finding an inode anew costs a step a level."""
    max_directories: int = 1_000_000
    """Different ones that are new to the vault; each takes about 0.2 ms."""
    max_entries: int = 50_000_000
    """Names in all of those together; each takes about 20 µs in a thread."""
    max_below: int = 1 << 32
    """Entries, each counted in every place where it is: an attached tree takes as many inode numbers, of which there
    are 2^63.  Thirty-two levels that hold the one below twice reach it."""
    max_waiting_bytes: int = 96 << 20
    """Names and digests of subdirectories not yet visited; a million take 60 MiB."""


class TreeRefused(TaskVaultError):
    """A foreign tree breaks a rule or a limit; no part of it is used."""

    def __init__(self, tree: Digest, path: str, reason: str) -> None:
        super().__init__(
            f"The tree {tree} cannot be taken: in {path}, {reason}; upload it again from a correct source."
        )
        self.tree = tree
        self.path = path
        self.reason = reason


class TreeIncomplete(TaskVaultError):
    """Something that a foreign tree names is not in the vault."""

    def __init__(self, tree: Digest, path: str, missing: Digest) -> None:
        super().__init__(f"The tree {tree} is not complete: {path} ({missing}) is not in the vault; upload it first.")
        self.tree = tree
        self.path = path
        self.missing = missing


class TreeForeign(TaskVaultError):
    """A tree under a hash function that is not the vault's."""

    def __init__(self, tree: Digest, own: str) -> None:
        super().__init__(f"The tree {tree} is not under {own}, the vault's hash function; upload it under that one.")
        self.tree = tree


class IngressSource(Protocol):
    """What ingress asks of a vault."""

    @property
    def hash_function(self) -> HashFunction:
        """The vault's own."""
        ...

    @property
    def scratch(self) -> Path:
        """A directory for files that have no name."""
        ...

    def content_of(self, digest: Digest) -> Content | None:
        """Return a content that the vault has; called from threads too."""
        ...

    def size_of(self, digest: Digest) -> int | None:
        """Return the size of the content with this hash, whatever size is told; None if there is none."""
        ...

    def root(self, index: bytes) -> TreeIndexRoot | None:
        """Return the root of a tree index that is there already and whole; called from threads too."""
        ...

    def hold(self, index: bytes) -> None:
        """Keep a tree index, now or when it is committed, until the tree that it is a part of refers to it."""
        ...

    async def read(self, content: Content, offset: int, length: int) -> bytes:
        """Return bytes of a content, chunks verified."""
        ...

    async def commit(self, rows: list[Row]) -> None:
        """Store rows of tree indexes; what they lead to is there, and stays until the ingress is through."""
        ...


class Ingress:
    """Takes trees, one after the other."""

    def __init__(self, source: IngressSource, limits: IngressLimits | None = None) -> None:
        self._source = source
        self._limits = limits or IngressLimits()
        self._hash_of = source.hash_function.digest
        self._empty_hash = self._hash_of(b"")

    async def take(self, tree: Digest) -> Snapshot:
        """Make a tree attachable and return it; at once if it is already.

        Raise `TreeForeign`, `TreeRefused` or `TreeIncomplete`, and what reading and committing raise.
        """
        if tree.function != self._source.hash_function.name:
            raise TreeForeign(tree, self._source.hash_function.name)
        return await _Taking(self, self._source, self._limits, tree).run()

    def index_of(self, hash_: bytes) -> bytes:
        """Return the id of the index of a tree without attributes."""
        return tree_index_id(self._hash_of, hash_, None)

    def is_empty(self, hash_: bytes) -> bool:
        """Whether this is the hash of no bytes."""
        return hash_ == self._empty_hash


@dataclass(slots=True)
class _Visit:
    """A directory whose index is being made."""

    name: bytes
    digest: Digest
    pending: PendingChildren
    survey: Survey | None = None


class _Taking:
    """One tree.  A depth-first walk with a stack of its own: each directory after those below it."""

    def __init__(self, ingress: Ingress, source: IngressSource, limits: IngressLimits, tree: Digest) -> None:
        self._ingress = ingress
        self._source = source
        self._limits = limits
        self._tree = tree
        self._stack: list[_Visit] = []
        self._fresh: dict[bytes, TreeIndexRoot] = {}
        """Roots that wait to be committed."""
        self._rows: list[Row] = []
        self._row_bytes = 0
        self._taken = 0
        self._entries = 0
        self._waiting_bytes = 0
        self._last_file: tuple[bytes, int, Content] | None = None

    async def run(self) -> Snapshot:
        tree = self._tree
        root = self._held(tree)
        if root is None:
            await self._enter(b"", tree)
            while self._stack:
                visit = self._stack[-1]
                child = visit.pending.take()
                if child is None:
                    root = await self._finish(visit)
                    self._stack.pop()
                elif (known := self._held(child[1])) is None:
                    await self._enter(*child)
                else:
                    self._check_height(known, child[0])
            await self._commit()
        assert root is not None, "the last directory that is finished is the root"
        return root.snapshot(self._ingress.index_of(tree.hash))

    def _held(self, digest: Digest) -> TreeIndexRoot | None:
        """Return the root of a directory whose index is made, which then stays."""
        self._source.hold(self._ingress.index_of(digest.hash))
        return self._known(digest)

    def _known(self, digest: Digest) -> TreeIndexRoot | None:
        """Return the root of a directory whose index is made; from a thread only for one that was held before."""
        index = self._ingress.index_of(digest.hash)
        root = self._fresh.get(index) or self._source.root(index)
        if root is None or root.tree_size != digest.size or (root.subdirectories and not root.height):
            return None
        return root

    async def _enter(self, name: bytes, digest: Digest) -> None:
        """Check a directory, and wait for those below it."""
        pending = PendingChildren()
        visit = _Visit(name, digest, pending)
        self._stack.append(visit)
        self._taken += 1
        if len(self._stack) > self._limits.max_depth:
            raise self._refused(f"there are more than {self._limits.max_depth} levels of directories")
        if self._taken > self._limits.max_directories:
            raise self._refused(f"there are more than {self._limits.max_directories} different directories")
        with ExitStack() as files:
            pieces = survey(await self._message(digest, files), self._limits.directory)
            long = digest.size > INLINE_BYTES
            while True:
                piece = await self._run(long, partial(next, pieces))
                if isinstance(piece, Survey):
                    visit.survey = piece
                    break
                self._entries += len(piece)
                if self._entries > self._limits.max_entries:
                    raise self._refused(f"there are more than {self._limits.max_entries} entries")
                if piece and isinstance(piece[0], TreeDirectory):
                    self._waiting_bytes += pending.add(piece, digest.function)
                if self._waiting_bytes > self._limits.max_waiting_bytes:
                    raise self._refused("there are too many different directories in each other")

    async def _finish(self, visit: _Visit) -> TreeIndexRoot:
        """Make the index of a directory; all below it have theirs."""
        self._waiting_bytes -= visit.pending.size_bytes
        digest = visit.digest
        index = self._ingress.index_of(digest.hash)
        writer = IndexWriter(index, most_below=self._limits.max_below)
        with ExitStack() as files:
            message = await self._message(digest, files)
            long = digest.size > INLINE_BYTES
            assert visit.survey is not None
            pages = self._pages(message, visit.survey, writer)
            rows: list[Row]
            while rows := await self._run(long, partial(list, islice(pages, PAGES_AT_A_TIME))):
                await self._keep(rows)
        own = OwnAttributes(DEFAULT_DIRECTORY_MODE, UNKNOWN, UNKNOWN, UNKNOWN)
        root, rows = writer.finish(digest, own)
        await self._keep(rows)
        self._fresh[index] = root
        return root

    def _pages(self, message: Encoded, found: Survey, writer: IndexWriter) -> Iterator[Row]:
        """Yield full pages; in a thread, if the message is long."""
        for node in merged(message, found):
            entry, child = self._entry(node)
            row = writer.add(entry, child)
            if row is not None:
                yield row

    def _entry(self, node: TreeNode) -> tuple[IndexEntry, TreeIndexRoot | None]:
        if isinstance(node, TreeFile):
            content = self._content(node)
            mode = 0o755 if node.executable else 0o644
            return IndexEntry(
                node.name, REGULAR, mode, UNKNOWN, UNKNOWN, UNKNOWN, content.size, int(content.kind), content.hash
            ), None
        if isinstance(node, TreeDirectory):
            root = self._known(Digest(self._tree.function, node.hash, node.size))
            assert root is not None, "a directory is finished after those below it"
            return IndexEntry(
                node.name, DIRECTORY, DEFAULT_DIRECTORY_MODE, UNKNOWN, UNKNOWN, UNKNOWN,
                child=self._ingress.index_of(node.hash), below=root.below,
            ), root  # fmt: skip
        return IndexEntry(
            node.name, SYMLINK, 0o777, UNKNOWN, UNKNOWN, UNKNOWN, len(node.target), target=node.target
        ), None

    def _content(self, node: TreeFile) -> Content:
        """Return where a file's content is; raise unless it is there, with the size that is told."""
        last = self._last_file
        if last is not None and last[0] == node.hash and last[1] == node.size:
            return last[2]
        digest = Digest(self._tree.function, node.hash, node.size)
        if (node.size == 0) != self._ingress.is_empty(node.hash):
            raise self._refused(f"the file is said to have {node.size} bytes and has another digest", node.name)
        content = self._source.content_of(digest)
        if content is None:
            raise self._absent(digest, node.name)
        self._last_file = (node.hash, node.size, content)
        return content

    async def _message(self, digest: Digest, files: ExitStack) -> Encoded:
        """Return a directory's message, the hash of a long one verified: chunks are, their order is not."""
        if (digest.size == 0) != self._ingress.is_empty(digest.hash):
            raise self._refused(f"the directory is said to have {digest.size} bytes and has another digest")
        if not digest.size:
            return b""
        if digest.size > self._limits.directory.max_bytes:
            raise self._refused(f"it has {digest.size} bytes, and {self._limits.directory.max_bytes} are allowed")
        content = self._source.content_of(digest)
        if content is None:
            raise self._absent(digest)
        if content.kind is ContentKind.CHUNK and digest.size <= IN_MEMORY_BYTES:
            return await self._source.read(content, 0, digest.size)
        return await self._long_message(content, digest, files)

    async def _long_message(self, content: Content, digest: Digest, files: ExitStack) -> Encoded:
        hasher = self._source.hash_function.hasher()
        file = files.enter_context(tempfile.TemporaryFile(dir=self._source.scratch))  # noqa: SIM115 - entered
        offset = 0
        while offset < digest.size:
            part = await self._source.read(content, offset, READ_BYTES)
            await trio.to_thread.run_sync(hasher.update, part)
            await trio.to_thread.run_sync(file.write, part)
            offset += len(part)
        if hasher.digest() != digest.hash:
            raise self._refused("the bytes of the directory do not have its hash")
        file.flush()
        mapped = mmap.mmap(file.fileno(), digest.size, access=mmap.ACCESS_READ)
        files.callback(mapped.close)
        return mapped

    async def _run(self, long: bool, work: Callable[[], T]) -> T:
        """Return what `work` returns, in a thread if it is long; an error tells where in the tree it is."""
        try:
            if long:
                return await trio.to_thread.run_sync(work)
            done = work()
        except TreeInvalid as exc:
            raise self._refused(exc.reason) from exc
        except TreeTooLarge as exc:
            raise self._refused(f"there are more than {exc.most} {exc.what}") from exc
        await trio.lowlevel.checkpoint()
        return done

    async def _keep(self, rows: list[Row]) -> None:
        for row in rows:
            self._rows.append(row)
            self._row_bytes += len(row[2])
        if len(self._rows) >= ROWS_IN_ONE_COMMIT or self._row_bytes >= ROW_BYTES_IN_ONE_COMMIT:
            await self._commit()

    async def _commit(self) -> None:
        rows, self._rows, self._row_bytes = self._rows, [], 0
        if rows:
            await self._source.commit(rows)
        self._fresh.clear()

    def _check_height(self, known: TreeIndexRoot, name: bytes) -> None:
        if len(self._stack) + 1 + known.height > self._limits.max_depth:
            raise self._refused(f"there are more than {self._limits.max_depth} levels of directories", name)

    def _absent(self, digest: Digest, name: bytes = b"") -> TaskVaultError:
        size = self._source.size_of(digest)
        if size is None or size == digest.size:
            return TreeIncomplete(self._tree, self._path(name), digest)
        return self._refused(f"{digest.size} bytes are told of a content that has {size}", name)

    def _refused(self, reason: str, name: bytes = b"") -> TreeRefused:
        return TreeRefused(self._tree, self._path(name), reason)

    def _path(self, name: bytes) -> str:
        """Return where the walk is, as people write it; only the ends of a long path."""
        names = [visit.name for visit in self._stack[1:]] + ([name] if name else [])
        shown = [part.decode("utf-8", "backslashreplace") for part in names]
        if len(shown) > SHOWN_NAMES:
            shown = [*shown[:2], f"… {len(shown) - SHOWN_NAMES + 1} more …", *shown[-SHOWN_NAMES + 3 :]]
        return ascii("/".join(shown)) if shown else "its root"
