"""One vault, opened: everything below HOME, and what belongs together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from tvfs.catalog.ballast import Ballast
from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.catalog.group_commit import FlushFailed
from tvfs.catalog.rocks import RocksCatalog, RocksSettings
from tvfs.chunks.cached import DEFAULT_CAPACITY_BYTES, CachedChunkStore
from tvfs.chunks.coalescing import CoalescingChunkStore
from tvfs.chunks.encoding import ChunkFormat, CodecUnknown
from tvfs.chunks.packed import PackedChunkStore, PackedStoreSettings
from tvfs.chunks.store import ChunkDamaged, ChunkMissing, ChunkStore
from tvfs.clock import Clock, SystemClock
from tvfs.digest import ChunkId
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.record import PACK_HEADER_BYTES, RECORD_HEADER_BYTES
from tvfs.plugin_api import Chunker, Codec, HashFunction, PluginRegistry
from tvfs.vault.audit import AuditLog
from tvfs.vault.collector import Collector
from tvfs.vault.commit import Committer
from tvfs.vault.compaction import Compactor
from tvfs.vault.counters import NEXT_PACK, Counters
from tvfs.vault.counting import CountingCatalog
from tvfs.vault.create import check_format
from tvfs.vault.entries import EntryTable
from tvfs.vault.layout import Layout
from tvfs.vault.leases import Leases
from tvfs.vault.lock import VaultLock
from tvfs.vault.pack_grants import PackGrants
from tvfs.vault.plugin_use import VaultPlugins
from tvfs.vault.recount import begin_counting, keep_unwanted
from tvfs.vault.recovery import REBUILDING, RepairUnfinished, mark_clean, recover
from tvfs.vault.references import TREE_KEY
from tvfs.vault.reservations import Reservations
from tvfs.vault.room import Room
from tvfs.vault.runs import MOST_BYTES, RunHistory
from tvfs.vault.slices import Slices
from tvfs.vault.superblock import KEY, decode_superblock
from tvfs.vault.suspects import SuspectPacks
from tvfs.vault.usage import VaultUsage


@dataclass(frozen=True, slots=True)
class OpenSettings:
    """What the owner may spend; nothing of it is stored."""

    catalog: RocksSettings = field(default_factory=RocksSettings)
    decoded_chunk_bytes: int = DEFAULT_CAPACITY_BYTES
    """Chunks kept decompressed in memory."""
    store: PackedStoreSettings = field(default_factory=PackedStoreSettings)
    """Thresholds and thread limits; the vault's own length of a pack counts, whatever is set here."""
    background_pauses: bool = True
    """Whether what works in the background leaves the owner to others; where nobody else is, it need not."""


class Vault:
    """The parts of one open vault; for the owner's trio thread only, unless a part says else.  See `open_vault`."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        registry: PluginRegistry,
        *,
        settings: OpenSettings,
        clock: Clock,
        on_damage: Callable[[ChunkId, str], None] | None,
    ) -> None:
        self.layout = layout
        self.clock = clock
        self.superblock = decode_superblock(catalog.get(Family.SYS, KEY))
        below_counting = catalog
        self.catalog = catalog = CountingCatalog(below_counting, function=self.superblock.hash, clock=clock)
        """Whoever writes to it need not know of counts."""
        self.plugins = VaultPlugins(catalog, registry, self.superblock)
        """Those that the vault was made with, whatever the configuration says now."""
        self._use(self.plugins)
        self._on_damage = on_damage

        self.packs = PackDirectory(layout.packs, self.superblock.uuid)
        self.counters = Counters(catalog)
        self.audit = AuditLog(catalog, clock)
        self.recovery = recover(catalog, self.packs, self.counters, self.audit)
        """What this start found."""
        begin_counting(below_counting, self.superblock.hash, clean=self.recovery.clean)
        self._note_plugins()
        self._store = self._packed_store(settings)
        self.chunks = chunk_stack(self._store, settings.decoded_chunk_bytes)
        """Decoded, verified, cached; what is put goes to packs of the vault's own."""

        self.ballast = Ballast(layout.ballast, self.superblock.capacity_bytes)
        self.usage = VaultUsage(layout, self.packs, catalog, clock)
        self.leases = Leases()
        self.slices = Slices() if settings.background_pauses else Slices(pause_s=0, idle_pause_s=0)
        """Of what works in the background."""
        self.collector = Collector(self.catalog, self.leases, clock, self.slices)
        self.reservations = Reservations(
            self.superblock.capacity_bytes,
            self.usage.charged_bytes,
            pack_bytes=self._longest_pack_bytes(),
            filled_by=self.usage.filled_by,
        )
        self.room = Room(self.reservations)
        """Where to ask before anything is written."""
        self.grants = PackGrants(catalog, self.packs, self.counters, self.room)
        self.compactor = Compactor(
            catalog=catalog,
            packs=self.packs,
            grants=self.grants,
            leases=self.leases,
            pack_max_bytes=self.superblock.pack_max_bytes,
            being_written=self._store.packs_being_written,
            check_chunk=self.check_chunk,
            clock=clock,
        )
        damaged_packs = [*self.recovery.short_packs, *self.recovery.missing_packs]
        self._suspects = SuspectPacks(catalog, self.check_chunk, damaged_packs)
        self.committer = Committer(
            catalog=catalog,
            packs=self.packs,
            grants=self.grants,
            leases=self.leases,
            hash_function=self.hash_function,
            codec_ids=self.codecs.keys(),
            before_promise=self._suspects.check,
        )
        self.entries = EntryTable(catalog, self.audit, clock, sharers=lambda tree: self.catalog.count(TREE_KEY + tree))
        self.runs = RunHistory(catalog, most_bytes=min(MOST_BYTES, self.superblock.capacity_bytes // 64))

    async def check_chunk(self, chunk_id: ChunkId) -> bool:
        """Read a chunk from the disk, whatever is cached, and say whether it is good; a bad one is quarantined."""
        try:
            await self._store.get(chunk_id)
        except (ChunkMissing, ChunkDamaged):
            return False
        return True

    async def check_chunks(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkId]:
        """Read chunks from the disk, whatever is cached, and return the bad ones, which are quarantined.

        Those that nobody needs any more count as good, and so do those of a codec that is not installed.
        """
        try:
            await self._store.get_many(chunk_ids)
        except (ChunkMissing, ChunkDamaged, CodecUnknown):
            return [chunk_id for chunk_id in chunk_ids if await self._is_bad(chunk_id)]
        return []

    async def _is_bad(self, chunk_id: ChunkId) -> bool:
        try:
            await self._store.get(chunk_id)
        except ChunkDamaged:
            return True
        except (ChunkMissing, CodecUnknown):
            return False
        return False

    def end_holder(self, holder: Hashable) -> None:
        """Let go of everything that a holder was promised: leases, reservations, packs."""
        self.leases.release(holder)
        self.reservations.release(holder)
        self.grants.end_holder(holder)

    async def aclose(self) -> None:
        """Flush, mark the stop as clean and close everything, also what follows something that failed.

        Nothing may use the vault any more, and whoever wrote to its packs must have stopped.
        """
        with trio.CancelScope(shield=True), ExitStack() as closing:
            closing.callback(self.catalog.close)
            closing.callback(self.packs.close)
            if self.catalog.failure is not None:
                # That was told when it failed.  The stop is not a clean one, and the next start puts things in order.
                closing.enter_context(suppress(FlushFailed))
            await self._store.aclose()
            self.grants.end_all()
            self.counters.close()
            await keep_unwanted(self.catalog)
            mark_clean(self.catalog)
            await self.catalog.flush()

    def _use(self, plugins: VaultPlugins) -> None:
        self.hash_function: HashFunction = plugins.hash_function
        self.chunker: Chunker = plugins.chunker
        self.codec: Codec = plugins.codec
        """For new chunks."""
        self.codecs: Mapping[int, Codec] = plugins.codecs
        """For reading, by number: those that the data needs, and the one for new chunks."""

    def _longest_pack_bytes(self) -> int:
        # The first record of a pack may be longer than packs are: in a small vault, with a chunker that hardly cuts.
        longest_record = RECORD_HEADER_BYTES + self.chunker.max_chunk_bytes
        return max(self.superblock.pack_max_bytes, PACK_HEADER_BYTES + longest_record)

    def _note_plugins(self) -> None:
        batch = Batch()
        self.plugins.note(batch)
        if batch:
            self.catalog.write(batch)

    def _packed_store(self, settings: OpenSettings) -> PackedChunkStore:
        return PackedChunkStore(
            self.catalog,
            self.packs,
            ChunkFormat(self.hash_function, self.codec, self.codecs, self.plugins.check),
            next_pack=lambda: self.counters.take(NEXT_PACK),
            on_damage=self._damaged,
            settings=replace(settings.store, pack_max_bytes=self.superblock.pack_max_bytes),
        )

    def _damaged(self, chunk_id: ChunkId, reason: str) -> None:
        batch = Batch()
        self.audit.append_to(batch, action="quarantine", key=chunk_id.hex(), who="vault", detail=reason)
        self.catalog.write(batch)
        self._suspects.note(chunk_id)
        if self._on_damage is not None:
            self._on_damage(chunk_id, reason)


def chunk_stack(store: ChunkStore, decoded_chunk_bytes: int) -> ChunkStore:
    """The wrappers around a vault's packs, and their order.

    Coalescing is outermost, so that many who ask for one chunk cost one load; the cache inside keeps its result.
    """
    return CoalescingChunkStore(CachedChunkStore(store, capacity_bytes=decoded_chunk_bytes))


@asynccontextmanager
async def open_vault(
    home: Path,
    registry: PluginRegistry,
    *,
    settings: OpenSettings | None = None,
    clock: Clock | None = None,
    on_damage: Callable[[ChunkId, str], None] | None = None,
) -> AsyncIterator[Vault]:
    """Own a vault for the length of the block; on leaving, everything is flushed.

    `on_damage` hears of each chunk that was found bad, after it was quarantined and audited.
    Raises `VaultMissing`, `VaultInUse`, `FormatTooNew`, `SuperblockInvalid`, `RepairUnfinished`, `PluginMissing`,
    `PluginChanged`, `PluginAmbiguous`, `PluginBroken` and what the catalog raises.
    """
    layout = Layout(home)
    settings = settings or OpenSettings()
    # Before the lock and the catalog, whose opening writes: a vault of a newer format is not touched.
    check_format(layout)
    lock = VaultLock(layout.lock)
    try:
        check_format(layout)
        catalog = _open_catalog(layout, registry, settings)
        try:
            vault = Vault(
                layout, catalog, registry, settings=settings, clock=clock or SystemClock(), on_damage=on_damage
            )
            catalog.ballast = vault.ballast
        except BaseException:
            catalog.close()
            raise
        try:
            yield vault
        finally:
            await vault.aclose()
    finally:
        lock.release()


def _open_catalog(layout: Layout, registry: PluginRegistry, settings: OpenSettings) -> RocksCatalog:
    """Open it for writing, which changes its files, only when it is known that the vault can be served."""
    wanted = settings.catalog
    # A group may be let through the vault's directory, and files here were made under whatever umask fsck ran with.
    for place in layout.home.glob(f"{layout.meta.name}*"):
        place.chmod(0o700)
    glimpse = RocksCatalog(layout.meta, settings=wanted, read_only=True)
    try:
        if glimpse.get(Family.SYS, REBUILDING) is not None:
            raise RepairUnfinished
        superblock = decode_superblock(glimpse.get(Family.SYS, KEY))
        VaultPlugins(glimpse, registry, superblock)
    finally:
        glimpse.close()
    # Only the catalog knows how small the vault is, and so how long its log may be.
    wal_bytes = min(wanted.max_wal_bytes, superblock.max_wal_bytes)
    ballast = Ballast(layout.ballast, superblock.capacity_bytes)
    settings_of_vault = replace(wanted, max_wal_bytes=wal_bytes)
    return RocksCatalog(layout.meta, settings=settings_of_vault, ballast=ballast)
