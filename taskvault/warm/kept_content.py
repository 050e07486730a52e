"""Rows and chunks that were read before, kept up to a size: what is known by its hash never changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from taskvault.client import Client
from taskvault.content_source import PackedChunks, RowReader
from taskvault.plugins import plugin_registry
from tvfs.content.tree_index import IndexEntry
from tvfs.digest import ChunkId
from tvfs.ingest.snapshot_source import ReadChunks, ReadRows, SnapshotSource
from tvfs.plugin_api import Codec, HashFunction

MOST_BYTES = 64 << 20
LARGEST_BYTES = 1 << 20
"""What is larger is read again: it costs little beside what is done with it."""

MOST_ENTRIES = 50_000

_Key = tuple[str, bytes]
_CHUNK = "chunk"


class KeptContent:
    """What one process keeps of one vault."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._registry = plugin_registry()
        self._codecs: dict[str, Mapping[int, Codec]] = {}
        self._entries: dict[tuple[bytes, bytes], IndexEntry] = {}
        """By index id and path: what was found there, and is there for ever."""

    def hash_function(self, name: str) -> HashFunction:
        """Return the function; raise `PluginUnknown` or `PluginBroken`."""
        return self._registry.hash_function(name)

    @contextmanager
    def source(self, client: Client, hash_function: HashFunction) -> Iterator[SnapshotSource]:
        """Yield a source that asks a vault only for what is not kept."""
        codecs = self._codecs.get(client.welcome.compression)
        if codecs is None:
            codecs = self._registry.codecs(likely=[client.welcome.compression])
            self._codecs[client.welcome.compression] = codecs
        chunks = PackedChunks(client, codecs)
        rows = RowReader(client)

        def read_rows(keys: Sequence[_Key]) -> list[bytes | None]:
            missing = [key for key in keys if key not in self._kept]
            read = dict(zip(missing, rows(missing), strict=True)) if missing else {}
            found = [read[key] if key in read else self._used(key) for key in keys]
            for key, value in read.items():
                if value is not None:
                    self._keep(key, value)
            return found

        def read_chunks(chunk_ids: Sequence[ChunkId]) -> list[bytes]:
            missing = [each for each in dict.fromkeys(chunk_ids) if (_CHUNK, each) not in self._kept]
            read = dict(zip(missing, chunks(missing), strict=True)) if missing else {}
            found = [read[each] if each in read else self._used((_CHUNK, each)) for each in chunk_ids]
            for each, raw in read.items():
                # Not a byte that does not have its hash is kept.
                if hash_function.digest(raw) == each:
                    self._keep((_CHUNK, each), raw)
            return found

        try:
            yield _KnownEntries(self._entries, read_rows, read_chunks, hash_function)
        finally:
            chunks.close()

    def _used(self, key: _Key) -> bytes:
        self._kept.move_to_end(key)
        return self._kept[key]

    def _keep(self, key: _Key, value: bytes) -> None:
        if len(value) > LARGEST_BYTES:
            return
        self._bytes += len(value) - len(self._kept.get(key, b""))
        self._kept[key] = value
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1])


class _KnownEntries(SnapshotSource):
    """A source that looks a path up once."""

    def __init__(
        self,
        known: dict[tuple[bytes, bytes], IndexEntry],
        read_rows: ReadRows,
        read_chunks: ReadChunks,
        hash_function: HashFunction,
    ) -> None:
        super().__init__(read_rows, read_chunks, hash_function)
        self._known = known

    def lookup(self, index: bytes, path: bytes) -> IndexEntry | None:
        """Return the entry at a path below a directory, or None."""
        found = self._known.get((index, path))
        if found is None:
            found = super().lookup(index, path)
            if found is not None:
                if len(self._known) >= MOST_ENTRIES:
                    self._known.clear()
                self._known[index, path] = found
        return found
