"""Bring contents into a vault: cut, hash, ask what is missing, compress, append, commit.

Order of durability: records are appended, their packs synced, and only then the commit is sent that names them.  Rows
and manifests are sent after every chunk that they lead to.  A failure anywhere stops everything and is raised once, to
the caller; what was committed before is whole and harmless.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from tvfs.catalog.catalog import Family
from tvfs.content.manifest import ManifestBuilder
from tvfs.content.reference import EMPTY, Content, ContentKind
from tvfs.content.tree_builder import BuiltDirectory
from tvfs.digest import HOLE, ChunkId, Digest
from tvfs.errors import TaskVaultError
from tvfs.ingest.chunk_sender import ChunkSender, IngestLost
from tvfs.ingest.commit import BlobRecord, IngestCommit, RowRecord
from tvfs.ingest.port import IngestPort, IngestSettings

SINGLE_CHUNK_BYTES = 64 << 10
"""A content up to here is one chunk, whatever the chunker would do: its digest is its chunk id, computed once."""
WINDOW_BYTES = 4 << 20
"""A long content is read, cut and hashed in pieces of this length; one is in memory per worker."""
BATCH_BYTES = 4 << 20
BATCH_CHUNKS = 512
"""How much waits before the vault is asked what of it is missing."""
ROWS_IN_ONE_COMMIT = 1024
ROW_BYTES_IN_ONE_COMMIT = 1 << 20
"""So that the owner is never held for long by one commit."""
WORKER_NICENESS = 10
"""Of the threads that hash and compress; see nice(1)."""
ROW_BYTES_KEPT = 32 << 20
"""Rows wait in memory until all chunks they lead to are committed; past this a checkpoint is made."""

T = TypeVar("T")

__all__ = ["Ingest", "IngestLost", "IngestStopped"]


class IngestStopped(TaskVaultError):
    """Something else failed, and this part of the work was given up; the other failure is the one that is reported."""

    def __init__(self) -> None:
        super().__init__("The transfer into the vault was stopped; look for the error before this one.")


class Ingest:
    """One transfer into a vault.  A context manager: leaving it without `finish` gives up what was not committed.

    Threads: one caller, who owns the object; the functions it hands to `run` may call `add_bytes` and `add_stream`.
    """

    def __init__(self, port: IngestPort, settings: IngestSettings) -> None:
        self._port = port
        self.settings = settings
        self._digest_of = settings.hash_function.digest
        self._cut = settings.chunker.cut
        self.single_chunk_bytes = min(SINGLE_CHUNK_BYTES, settings.chunker.max_chunk_bytes)
        # Two chunks at least, so that where the first one ends does not depend on where the window does.
        self._window_bytes = max(WINDOW_BYTES, 2 * settings.chunker.max_chunk_bytes)
        self._sender = ChunkSender(port, settings)
        self._empty_hash = self._digest_of(b"")
        self._lock = threading.Lock()
        self._pending: list[tuple[ChunkId, bytes | memoryview]] = []
        self._pending_bytes = 0
        self._blobs: list[BlobRecord] = []
        self._rows: list[RowRecord] = []
        self._row_bytes = 0
        self._failure: BaseException | None = None
        self._tasks: set[Future[Any]] = set()
        # Two pools: work waits for room among the senders, and senders for nobody, so nothing waits in a circle.
        self._workers = _Workers(settings.threads, "ingest-work") if settings.threads > 1 else None
        self._senders = _Workers(settings.threads, "ingest-send") if settings.threads > 1 else None

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def digest(self, content: Content) -> Digest:
        """Return the digest of a content that this ingest added."""
        hash_ = self._empty_hash if content.kind is ContentKind.EMPTY else content.hash
        return Digest(self.settings.hash_function.name, hash_, content.size)

    def add_bytes(self, whole: bytes) -> Content:
        """Add a content that is in memory."""
        size = len(whole)
        if size > self.single_chunk_bytes:
            return self.add_stream(_reader_of(whole), size)
        if not size:
            return EMPTY
        chunk_id = ChunkId(self._digest_of(whole))
        if self._sender.is_new(chunk_id):
            self._add_pending([(chunk_id, whole)], size)
        return Content(ContentKind.CHUNK, chunk_id, size)

    def add_stream(self, read: Callable[[int], bytes], size_hint: int = 0) -> Content:
        """Add what `read(n)` returns, at most n bytes a time, until it returns none; the hint need not be right."""
        window = _fill(read, b"", min(max(size_hint, self.single_chunk_bytes) + 1, self._window_bytes))
        if len(window) <= self.single_chunk_bytes:
            return self.add_bytes(window)
        if size_hint < len(window) < self._window_bytes:
            # Windows lie at the same places whatever the hint was: equal contents get equal manifests.
            window = _fill(read, window, self._window_bytes)
        return self._add_windows(read, window)

    def add_row(self, family: Family, key: bytes, value: bytes) -> None:
        """Add a content-addressed row; it is committed after every chunk that was added before it."""
        with self._lock:
            self._rows.append(RowRecord(family.value, key, value))
            self._row_bytes += len(key) + len(value)

    def add_directory(self, built: BuiltDirectory) -> None:
        """Add what is to be stored of a directory; those below it were added before."""
        self.add_bytes(built.tree)
        if built.attributes is not None:
            self.add_bytes(built.attributes)
        for row in built.rows:
            self.add_row(*row)

    def run(self, work: Callable[[], T]) -> Future[T]:
        """Do `work` in a worker, or here if there are none; waits while all workers have enough to do.

        For the caller only, never from within other work.  Ask for the result through `result`.
        """
        self._raise_failure()
        return self._start(self._workers, work)

    def result(self, future: Future[T]) -> T:
        """Return what the work returned; raise what stopped the ingest."""
        try:
            return future.result()
        except BaseException:
            self._raise_failure()
            raise

    def checkpoint_if_due(self) -> None:
        """Commit rows if many are waiting; for the caller, now and then."""
        if self._row_bytes > ROW_BYTES_KEPT:
            self.finish()

    def finish(self) -> None:
        """Return when everything added is committed; raise what stopped the ingest.  More may be added afterwards."""
        self._wait_for_tasks()
        with self._lock:
            batch = self._take_pending()
        self._sender.send(batch)
        self._sender.commit()
        with self._lock:
            blobs, rows = self._blobs, self._rows
            self._blobs, self._rows, self._row_bytes = [], [], 0
        self._commit_rows(blobs, rows)

    def close(self) -> None:
        """Stop all work and let go of the packs; what was not committed is given up."""
        if self._workers is not None and self._senders is not None:
            self._stop(IngestStopped())
            self._workers.close()
            self._senders.close()
        self._sender.close()

    def _add_windows(self, read: Callable[[int], bytes], window: bytes) -> Content:
        hasher = self.settings.hash_function.hasher()
        builder = ManifestBuilder(self._digest_of)
        batch: list[tuple[ChunkId, bytes | memoryview]] = []
        batch_bytes = carried = size = 0
        many_windows = False
        while True:
            self._give_up_if_stopped()
            at_end = len(window) < self._window_bytes
            many_windows = many_windows or not at_end
            view = memoryview(window)
            hasher.update(view[carried:])
            size += len(window) - carried
            used = self._cut_window(view, at_end, builder, batch)
            batch_bytes = sum(len(raw) for _, raw in batch)
            # What one window brought, less what is carried over, is enough to ask about.
            if batch_bytes >= BATCH_BYTES // 2 or (many_windows and at_end):
                self._send(batch)
                batch, batch_bytes = [], 0
            if at_end:
                break
            carried = len(window) - used
            window = _fill(read, window[used:], self._window_bytes)
        if batch:
            # Of a short content only: a chunk that waits keeps its whole window in memory.
            self._add_pending(batch, batch_bytes)
        return self._stored(hasher.digest(), size, builder)

    def _cut_window(
        self,
        view: memoryview,
        at_end: bool,
        builder: ManifestBuilder,
        batch: list[tuple[ChunkId, bytes | memoryview]],
    ) -> int:
        """Cut a window, add its chunks, and return how many bytes were used: all, at the end of the content."""
        if not view:  # the content ended with the window before
            return 0
        if _is_zeros(view):
            builder.add(len(view), HOLE)
            return len(view)
        lengths = self._cut(view)
        if not at_end and len(lengths) > 1:
            # The next window decides where the last chunk ends.
            lengths.pop()
        start = 0
        for length in lengths:
            raw = view[start : start + length]
            start += length
            if _is_zeros(raw):
                builder.add(length, HOLE)
                continue
            chunk_id = ChunkId(self._digest_of(raw))
            builder.add(length, chunk_id)
            if self._sender.is_new(chunk_id):
                batch.append((chunk_id, raw))
        return start

    def _stored(self, hash_: bytes, size: int, builder: ManifestBuilder) -> Content:
        if builder.only_chunk() is not None:
            return Content(ContentKind.CHUNK, hash_, size)
        built = builder.finish()
        rows = [RowRecord(Family.PAGE.value, page_hash, page) for page_hash, page in built.pages]
        with self._lock:
            self._rows += rows
            self._blobs.append(BlobRecord(self.settings.hash_function.name, hash_, built.root))
            self._row_bytes += len(built.root) + sum(len(row.value) for row in rows)
        return Content(ContentKind.MANIFEST, hash_, size)

    def _add_pending(self, chunks: Sequence[tuple[ChunkId, bytes | memoryview]], raw_bytes: int) -> None:
        batch = None
        with self._lock:
            self._pending += chunks
            self._pending_bytes += raw_bytes
            if self._pending_bytes >= BATCH_BYTES or len(self._pending) >= BATCH_CHUNKS:
                batch = self._take_pending()
        if batch is not None:
            self._send(batch)

    def _send(self, batch: list[tuple[ChunkId, bytes | memoryview]]) -> None:
        self._start(self._senders, partial(self._sender.send, batch))

    def _take_pending(self) -> list[tuple[ChunkId, bytes | memoryview]]:
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        return batch

    def _commit_rows(self, blobs: list[BlobRecord], rows: list[RowRecord]) -> None:
        """Send rows in the order in which they refer to each other: pages, manifests, tree indexes.

        Of an index the pages come before the root, so that where a root is, all of the tree is.
        """
        for part in _parts([row for row in rows if row.family == Family.PAGE], _row_bytes):
            self._commit(IngestCommit(rows=part))
        for manifests in _parts(blobs, _blob_bytes):
            self._commit(IngestCommit(blobs=manifests))
        for part in _parts(_roots_last([row for row in rows if row.family != Family.PAGE]), _row_bytes):
            self._commit(IngestCommit(rows=part))

    def _commit(self, commit: IngestCommit) -> None:
        missing = self._port.commit(commit)
        if missing:
            raise IngestLost(missing)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            self._give_up_if_stopped()
            return work()
        except BaseException as exc:  # whatever it is: the others must stop, and the caller gets it
            self._stop(exc)
            raise

    def _start(self, workers: _Workers | None, work: Callable[[], T]) -> Future[T]:
        if workers is None:
            done: Future[T] = Future()
            done.set_result(work())
            return done
        future = workers.submit(partial(self._guarded, work))
        self._tasks.add(future)
        future.add_done_callback(self._tasks.discard)
        return future

    def _wait_for_tasks(self) -> None:
        # Work that ends may have begun to send.
        while self._tasks:
            for task in list(self._tasks):
                self.result(task)
        self._raise_failure()

    def _stop(self, failure: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure

    def _give_up_if_stopped(self) -> None:
        if self._failure is not None:
            raise IngestStopped

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class _Workers:
    """A few threads, and a bound on what waits for them."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name, initializer=_step_back)
        # One more than there are threads: none has to wait for its next task to be prepared.
        self._room = threading.BoundedSemaphore(threads + 1)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Start `work`, or wait until there is room for it."""
        self._room.acquire()
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        """Wait for what runs and drop what waits."""
        self._pool.shutdown(cancel_futures=True)


def _step_back() -> None:
    # Of the thread alone, as Linux has it.  Hashing and compressing would take whole turns of the scheduler from the
    # daemon, for whose answer somebody waits; where nobody else wants the processor it costs nothing.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(WORKER_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


def _row_bytes(row: RowRecord) -> int:
    return len(row.key) + len(row.value)


def _blob_bytes(blob: BlobRecord) -> int:
    return len(blob.hash) + len(blob.manifest)


def _roots_last(rows: Sequence[RowRecord]) -> list[RowRecord]:
    """Return rows of tree indexes, which come root first, with each root behind its own pages."""
    ordered: list[RowRecord] = []
    root: RowRecord | None = None
    for row in rows:
        if root is not None and not row.key.startswith(root.key):
            ordered.append(root)
            root = None
        if row.family == Family.TREE:
            root = row
        else:
            ordered.append(row)
    return ordered if root is None else [*ordered, root]


def _parts(records: list[T], bytes_of: Callable[[T], int]) -> Iterator[list[T]]:
    start = taken_bytes = 0
    for position, record in enumerate(records, 1):
        taken_bytes += bytes_of(record)
        full = taken_bytes >= ROW_BYTES_IN_ONE_COMMIT or position - start >= ROWS_IN_ONE_COMMIT
        if full or position == len(records):
            yield records[start:position]
            start, taken_bytes = position, 0


def _fill(read: Callable[[int], bytes], start: bytes, length: int) -> bytes:
    """Return `start` and what follows it, `length` bytes in all; less only at the end of the content."""
    parts = [start] if start else []
    missing = length - len(start)
    while missing:
        part = read(missing)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _reader_of(whole: bytes) -> Callable[[int], bytes]:
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        part = whole[position : position + length]
        position += len(part)
        return part

    return read


def _is_zeros(view: memoryview) -> bool:
    length = len(view)
    return view[0] == view[length // 2] == view[-1] == 0 and bytes(view) == bytes(length)
