"""Reads what a vault holds: rows from the owner, chunks straight from packs, whose descriptors the owner passes on."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from taskvault.client import Client
from taskvault.errors import Refused
from taskvault.plugins import plugin_registry
from taskvault.protocol.messages import CheckChunks, ChunkLocation, GetRows, Locate
from tvfs.chunks.encoding import decode_chunk
from tvfs.chunks.store import ChunkDamaged, ChunkMissing
from tvfs.digest import ChunkId
from tvfs.ingest.snapshot_source import ContentDamaged, SnapshotSource
from tvfs.packs.location import Location
from tvfs.packs.pack_reader import neighbouring, payload_of, read_run
from tvfs.packs.record import PackDamaged
from tvfs.plugin_api import Codec, CodecFailed, PluginRegistry

MAX_OPEN_PACKS = 64
"""Descriptors kept for later chunks of the same packs."""

ROWS_IN_ONE_REQUEST = 128
"""A page of a tree index has up to 256 entries, 40 KiB; with long names ten times as much: 5 MiB at the most usual."""

IDS_IN_ONE_REQUEST = 65_536

_RELOCATIONS = 3
"""How often a chunk is asked for again that was not where it had been said to be."""


@contextmanager
def content_source(client: Client, registry: PluginRegistry | None = None) -> Iterator[SnapshotSource]:
    """Yield a source of snapshots and contents; raise `PluginUnknown` or `PluginBroken`.

    What it finds damaged is reported to the owner, so that the same bytes, saved again, are stored anew.
    """
    registry = registry or plugin_registry(client.welcome.plugin_call_timeout_s)
    chunks = PackedChunks(client, registry.codecs(likely=[client.welcome.compression]))
    try:
        yield SnapshotSource(RowReader(client), chunks, registry.hash_function(client.welcome.hash))
    except ContentDamaged as exc:
        with suppress(ValueError):  # a content that is known by another name than its hash
            chunks.report(ChunkId(bytes.fromhex(exc.name)))
        raise
    finally:
        chunks.close()


class RowReader:
    """Content-addressed rows, by `(family, key)`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, keys: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """Return the values in order, None for what is not there; raise what `Client.call` raises."""
        values: list[bytes | None] = []
        for start in range(0, len(keys), ROWS_IN_ONE_REQUEST):
            values += self._ask(keys[start : start + ROWS_IN_ONE_REQUEST])
        return values

    def _ask(self, keys: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        try:
            return self._client.call(GetRows(list(keys))).values
        except Refused as exc:
            if exc.kind != "FrameTooLarge" or len(keys) == 1:
                raise
        half = len(keys) // 2
        return self._ask(keys[:half]) + self._ask(keys[half:])


class PackedChunks:
    """Chunks by id, decompressed; whoever asks verifies them by their hash.  Used by one thread."""

    def __init__(self, client: Client, codecs: Mapping[int, Codec]) -> None:
        self._client = client
        self._codecs = codecs
        self._packs: OrderedDict[int, int] = OrderedDict()

    def __call__(self, chunk_ids: Sequence[ChunkId]) -> list[bytes]:
        """Return the chunks in order; raise `ChunkMissing`, `ChunkDamaged`, `CodecUnknown` or as `call` does."""
        found: dict[ChunkId, bytes] = {}
        wanted = list(dict.fromkeys(chunk_ids))
        for _ in range(_RELOCATIONS):
            reasons: dict[ChunkId, str] = {}
            for start in range(0, len(wanted), IDS_IN_ONE_REQUEST):
                self._fetch(wanted[start : start + IDS_IN_ONE_REQUEST], found, reasons)
            wanted = list(reasons)
            if not wanted:
                return [found[chunk_id] for chunk_id in chunk_ids]
        self.report(wanted[0])
        raise ChunkDamaged(wanted[0], reasons[wanted[0]])

    def report(self, chunk_id: ChunkId) -> None:
        """Have the owner look at a chunk that could not be read: it quarantines what is bad."""
        self._client.call(CheckChunks([chunk_id]))

    def close(self) -> None:
        """Close the packs."""
        while self._packs:
            os.close(self._packs.popitem()[1])

    def _fetch(self, wanted: Sequence[ChunkId], found: dict[ChunkId, bytes], reasons: dict[ChunkId, str]) -> None:
        """Read what can be read; say of the rest why not.  What is said may be out of date: ask again."""
        asked: list[bytes] = list(wanted)
        while asked:
            located, descriptors = self._client.call_with_descriptors(Locate(asked))
            self._keep(located.packs, descriptors)
            if located.missing:
                raise ChunkMissing(ChunkId(located.missing[0]))
            places = [(ChunkId(place.chunk_id), _location(place)) for place in located.locations]
            for run in neighbouring(places):
                self._read(run, found, reasons)
            self._let_go()
            asked = located.later

    def _read(
        self, run: list[tuple[ChunkId, Location]], found: dict[ChunkId, bytes], reasons: dict[ChunkId, str]
    ) -> None:
        try:
            records = read_run(self._packs[run[0][1].pack], [location for _, location in run])
        except PackDamaged as exc:
            reasons.update((chunk_id, str(exc)) for chunk_id, _ in run)
            return
        for record, (chunk_id, location) in zip(records, run, strict=True):
            try:
                found[chunk_id] = decode_chunk(payload_of(record, location, chunk_id), location, self._codecs)
            except (PackDamaged, CodecFailed) as exc:
                reasons[chunk_id] = str(exc)

    def _keep(self, numbers: Sequence[int], descriptors: Sequence[int]) -> None:
        for number, descriptor in zip(numbers, descriptors, strict=True):
            old = self._packs.pop(number, None)
            if old is not None:
                os.close(old)
            self._packs[number] = descriptor

    def _let_go(self) -> None:
        while len(self._packs) > MAX_OPEN_PACKS:
            os.close(self._packs.popitem(last=False)[1])


def _location(place: ChunkLocation) -> Location:
    return Location(place.pack, place.offset, place.stored_bytes, place.raw_bytes, place.codec)
