"""What a vault should hold, in dictionaries, and the referee that compares."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace

from tests.model.store_world import StoreWorld
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row
from tvfs.chunks.store import ChunkDamaged, ChunkMissing
from tvfs.content.manifest import Manifest
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import decode_page, decode_root, page_key
from tvfs.digest import HOLE, ChunkId, function_code
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_row import decode_pack_row, pack_number
from tvfs.packs.record import PACK_HEADER_BYTES
from tvfs.vault.entry_totals import count_entries
from tvfs.vault.entry_usage import usage_rows
from tvfs.vault.reachability import compare_exactly
from tvfs.vault.stored_entry import StoredEntry, decode_entry

Name = tuple[str, str]
"""Scope and key."""
Place = tuple[int, int]
"""Pack and offset of a record."""


class Wrong(AssertionError):
    """The vault is not what it should be."""


def demand(condition: object, what: str) -> None:
    """Raise `Wrong` unless so."""
    if not condition:
        raise Wrong(what)


@dataclass(frozen=True)
class Tree:
    """A directory of files."""

    snapshot: Snapshot
    files: dict[bytes, bytes]
    durable: bool = True
    """Whether that it is there was acknowledged, before an entry was bound to it."""


@dataclass(frozen=True)
class Blob:
    """A content that was stored without a tree."""

    content: Content
    raw: bytes
    durable: bool = True


@dataclass(frozen=True)
class Known:
    """An entry."""

    tree: Tree
    created_ns: int
    expires_ns: int = 0
    pinned: bool = False
    uses: int = 0


@dataclass
class Model:
    """What was acknowledged, and what of it a power loss may take back."""

    entries: dict[Name, Known] = field(default_factory=dict)
    versions: dict[Name, list[Known | None]] = field(default_factory=dict)
    """Of entries changed since everything was known to be durable: what they were in turn."""
    dirs: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    """Below `work/`."""
    loose: set[bytes] = field(default_factory=set)
    """Directories that were changed since everything was known to be durable."""
    staged: set[bytes] = field(default_factory=set)
    """Directories with files that are not sealed: their bytes may go in a power loss even then."""
    held: dict[str, list[Tree | Blob]] = field(default_factory=dict)
    """By holder: acknowledged, and leased until it goes away."""
    reading: list[tuple[float, Tree]] = field(default_factory=list)
    """Found without a lease, and readable until then."""
    rotten: dict[ChunkId, tuple[bytes, set[Place]]] = field(default_factory=dict)
    """Chunks that were damaged on the disk: their bytes, and where; also those that have healed elsewhere."""
    bad: list[bytes] = field(default_factory=list)
    """Those that are bad now."""

    def change(self, name: Name, known: Known | None) -> None:
        """An entry was written or removed."""
        self.versions.setdefault(name, [self.entries.get(name)]).append(known)
        if known is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = known

    def may_be_evicted(self, names: list[Name]) -> None:
        """For a time that the model does not see, entries that are not pinned may be gone, and come back."""
        for name in names:
            self.versions.setdefault(name, []).extend((None, self.entries.get(name)))

    def all_is_durable(self) -> None:
        """A flush was acknowledged."""
        self.versions.clear()
        self.loose = set(self.staged)

    def holders_are_gone(self) -> None:
        """The process died: no promise outlives it."""
        self.held.clear()
        self.reading.clear()

    def is_rotten(self, raw: bytes) -> bool:
        """Whether a content may have a damaged part."""
        return any(bad in raw for bad in self.bad)


class Referee:
    """Compares a model with a world; nothing else may run meanwhile."""

    def __init__(self, world: StoreWorld, model: Model) -> None:
        self.world = world
        self.model = model
        self.checks = 0
        self._chunks: dict[ChunkId, bytes] = {}
        """What was read from the disk in this check."""

    async def check(self) -> None:
        """Look at everything."""
        self.checks += 1
        self.heal()
        self.check_counts()
        self.check_packs()
        self.check_disk()
        self.check_entries()
        await self.check_live_chunks()
        for known in list(self.model.entries.values()):
            await self.check_tree(known.tree, "an entry's")
        for held in self.model.held.values():
            for each in held:
                await self.check_held(each)
        now_s = self.world.clock.monotonic_s()
        for until_s, tree in self.model.reading:
            if now_s < until_s:
                await self.check_tree(tree, "one that is being read")
        await self.check_work()
        self._chunks.clear()

    def check_counts(self) -> None:
        """The counts are what the rows say, what is wanted is there, and what is not is known as unwanted."""
        catalog = self.world.vault.catalog
        found = compare_exactly(catalog, "blake3", catalog.unwanted.newborn)
        demand(not found, f"the referee of the counts: {[str(each) for each in found[:3]]}")

    def check_packs(self) -> None:
        """The figures of packs are what a scan finds."""
        vault = self.world.vault
        live: Counter[int] = Counter()
        end: dict[int, int] = {}
        for _, value in vault.catalog.scan(Family.CHUNK):
            row = decode_chunk_row(value)
            at = row.location
            if row.state is ChunkState.LIVE:
                live[at.pack] += record_bytes(at)
            if row.state is not ChunkState.QUARANTINED:
                end[at.pack] = max(end.get(at.pack, 0), at.offset + record_bytes(at))
        rows = {pack_number(key): decode_pack_row(value) for key, value in vault.catalog.scan(Family.PACK)}
        figures = {number: row.live_bytes for number, row in rows.items() if row.live_bytes}
        demand(figures == dict(live), f"live bytes of packs: {figures}, found by a scan {dict(live)}")
        for number, end_bytes in end.items():
            demand(number in rows and rows[number].committed_bytes >= end_bytes, f"pack {number} ends too early")
        busy = vault.grants.being_written() | vault._store.packs_being_written()
        lengths = {number: vault.packs.size(number) for number in vault.packs.numbers()}
        for number, row in rows.items():
            demand(number in lengths, f"pack {number} has a row and no file")
            if number not in busy:
                demand(lengths[number] == row.committed_bytes, f"pack {number} is not as long as was committed")
        demand(not lengths.keys() - rows.keys() - busy, "a pack without a row stayed")
        demand(all(length >= PACK_HEADER_BYTES for length in lengths.values()), "a pack has no header")

    def check_disk(self) -> None:
        """What is on the disk is what was counted, and not more than the capacity, by one pack at most."""
        vault = self.world.vault
        busy = vault.grants.being_written() | vault._store.packs_being_written()
        taken_bytes = 0
        for number in vault.packs.numbers():
            found = os.stat(vault.packs.path / f"{number:016x}.pack").st_blocks * 512
            taken_bytes += found
            counted = vault.packs.allocated_bytes(number)
            demand(number in busy or counted == found, f"pack {number} takes {found} bytes, counted {counted}")
        for parent, _, names in os.walk(vault.layout.staging):
            taken_bytes += sum(os.stat(os.path.join(parent, name)).st_blocks * 512 for name in names)
        most_bytes = vault.superblock.capacity_bytes + self.world.longest_pack_bytes
        demand(taken_bytes <= most_bytes, f"{taken_bytes} bytes are on the disk")

    def check_entries(self) -> None:
        """Entries and their rows of usage are what the model has."""
        catalog = self.world.vault.catalog
        stored = {
            (entry.scope, entry.key): entry
            for entry in (decode_entry(key, row) for key, row in catalog.scan(Family.ENTRY))
        }
        demand(stored.keys() == self.model.entries.keys(), f"entries: {sorted(stored)}")
        usage: set[bytes] = set()
        for entry in stored.values():
            usage |= usage_rows(entry)
        demand({key for key, _ in catalog.scan(Family.USAGE)} == usage, "rows of usage are not those of the entries")
        demand(self.world.vault.entries.totals() == count_entries(catalog), "the sums over all entries")
        now_ns = self.world.clock.now_ns()
        for name in list(stored):
            found = self.world.vault.entries.get(*name)
            known = self.model.entries[name]
            expired = 0 < known.expires_ns <= now_ns
            demand((found is None) == expired, f"{name} is {'found though expired' if expired else 'not found'}")
            if found is not None:
                demand(is_like(found, known), f"{name} is another than was saved")

    async def check_live_chunks(self) -> None:
        """What is live can be read from the disk, whatever is cached."""
        rotten = self.model.rotten
        rows = [(ChunkId(key), decode_chunk_row(value)) for key, value in self.world.vault.catalog.scan(Family.CHUNK)]
        live = [
            chunk_id
            for chunk_id, row in rows
            if row.state is ChunkState.LIVE and not (chunk_id in rotten and self.lies_rotten(chunk_id, row))
        ]
        try:
            self._chunks = dict(zip(live, await self.world.vault._store.get_many(live), strict=True))
        except (ChunkDamaged, ChunkMissing) as exc:
            raise Wrong(f"a live chunk cannot be read: {exc}") from exc

    async def check_held(self, each: Tree | Blob) -> None:
        """What a holder was promised is there."""
        if isinstance(each, Tree):
            await self.check_tree(each, "a leased one")
        elif not self.model.is_rotten(each.raw):
            demand(await self.read(each.content, "a leased content") == each.raw, "a leased content is another")

    async def check_tree(self, tree: Tree, whose: str) -> None:
        """All of a tree can be read, byte for byte."""
        catalog = self.world.vault.catalog
        index = tree.snapshot.index
        row = catalog.get(Family.TREE, index)
        if row is None:
            raise Wrong(f"the tree {index.hex()[:8]} ({whose}) is gone")
        found: dict[bytes, bytes] = {}
        for number in range(len(decode_root(index, row).page_names)):
            page = catalog.get(Family.TREEPAGE, page_key(index, number))
            if page is None:
                raise Wrong(f"a page of the tree {index.hex()[:8]} ({whose}) is gone")
            for entry in decode_page(index, number, page):
                expected = tree.files.get(entry.name)
                if expected is not None and self.model.is_rotten(expected):
                    found[entry.name] = expected
                else:
                    found[entry.name] = await self.read(entry.content, f"a file of a tree ({whose})")
        demand(found == tree.files, f"a tree ({whose}) reads differently")

    async def read(self, content: Content, what: str) -> bytes:
        """Return a content, read from the disk."""
        if content.kind is ContentKind.EMPTY:
            return b""
        try:
            if content.kind is ContentKind.CHUNK:
                return await self._chunk(content.hash)
            return await self._read_items(self._manifest(content.hash, what), what)
        except (ChunkDamaged, ChunkMissing) as exc:
            raise Wrong(f"{what} cannot be read: {exc}") from exc

    async def check_work(self) -> None:
        """What is below `work/` is as it was written."""
        demand(set(self.world.names(b"")) == set(self.model.dirs), f"work/ has {self.world.names(b'')}")
        for name, files in self.model.dirs.items():
            demand(set(self.world.names(name)) == set(files), f"work/{name!r} has {self.world.names(name)}")
            for file, raw in files.items():
                if self.model.is_rotten(raw):
                    continue
                found = await self.world.read(name + b"/" + file)
                what = f"{len(found)} bytes {found[:20]!r}, expected {len(raw)} {raw[:20]!r}"
                demand(found == raw, f"work/{name!r}/{file!r} is another: {what}")

    def heal(self) -> None:
        """Find out which of the damaged chunks are bad now: what came again lies well somewhere else."""
        self.model.bad = [raw for chunk_id, (raw, _) in self.model.rotten.items() if self.is_bad(chunk_id)]

    def is_bad(self, chunk_id: ChunkId) -> bool:
        """Whether a chunk cannot be read, because of a damage."""
        if chunk_id not in self.model.rotten:
            return False
        row = ChunkIndex(self.world.vault.catalog).find(chunk_id)
        return row is not None and (row.state is ChunkState.QUARANTINED or self.lies_rotten(chunk_id, row))

    def lies_rotten(self, chunk_id: ChunkId, row: ChunkRow) -> bool:
        """Whether the record that a row points to was damaged."""
        return (row.location.pack, row.location.offset) in self.model.rotten.get(chunk_id, (b"", set()))[1]

    def _manifest(self, hash_: bytes, what: str) -> Manifest:
        row = self.world.vault.catalog.get(Family.BLOB, bytes([function_code("blake3")]) + hash_)
        if row is None:
            raise Wrong(f"the manifest of {what} is gone")
        return Manifest(row)

    async def _read_items(self, manifest: Manifest, what: str) -> bytes:
        parts: list[bytes] = []
        for length, id_ in manifest.items():
            if manifest.level:
                page = self.world.vault.catalog.get(Family.PAGE, id_)
                if page is None:
                    raise Wrong(f"a page of {what} is gone")
                parts.append(await self._read_items(Manifest(page), what))
            elif id_ == HOLE:
                parts.append(bytes(length))
            else:
                parts.append(await self._chunk(id_))
        return b"".join(parts)

    async def _chunk(self, id_: bytes) -> bytes:
        chunk = self._chunks.get(ChunkId(id_))
        return chunk if chunk is not None else await self.world.vault._store.get(ChunkId(id_))


def is_like(entry: StoredEntry, known: Known) -> bool:
    """Whether an entry is the one that the model has."""
    assert entry.snapshot is not None
    return (
        entry.snapshot.index == known.tree.snapshot.index
        and (entry.created_ns, entry.expires_ns, entry.pinned) == (known.created_ns, known.expires_ns, known.pinned)
        and (entry.rank is None) == known.pinned
    )


def used(known: Known) -> Known:
    """Return the entry after it was used."""
    return replace(known, uses=known.uses + 1)
