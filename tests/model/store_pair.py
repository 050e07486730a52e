"""A vault and its model side by side, and what is checked around every step."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from trio.testing import MockClock

from tests.model.inline_threads import real_threads
from tests.model.store_model import Blob, Known, Model, Referee, Tree, demand, is_like
from tests.model.store_sender import Sender, Unsaved
from tests.model.store_world import StoreWorld
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.digest import ChunkId
from tvfs.filesystem.model import WORK
from tvfs.filesystem.posix_error import IoFailed, NoSpace
from tvfs.vault.entries import KeyMissing
from tvfs.vault.reservations import VaultFull
from tvfs.vault.unwanted import EPOCH_S

NAMES = [("main", "a"), ("main", "b"), ("main", "a-b"), ("main", "c-1"), ("pr/7", "a"), ("pr/7", "b"), ("x", "y")]
HOLDERS = ("client 1", "client 2", "client 3")
MIXED = ("together", "fill")
"""Steps in which entries may be evicted and then saved again."""


class Pair:
    """The steps themselves are those of `store_actions.Actions`."""

    def __init__(self, home: Path, draw: random.Random, mock: MockClock, *, capacity_bytes: int) -> None:
        self.draw = draw
        self.mock = mock
        self.capacity_bytes = capacity_bytes
        self.world = StoreWorld(home, draw, mock, capacity_bytes=capacity_bytes)
        self.model = Model()
        self.referee = Referee(self.world, self.model)
        self.unsaved = Unsaved(random.Random(0))
        self.senders: dict[str, Sender] = {}
        self.happened: Counter[str] = Counter()
        """What steps came to."""
        self._together = False

    async def take(self, name: str) -> None:
        """Take a step, and check what is always so."""
        evictor = self.world.evictor
        before = evictor.evicted + evictor.expired
        try:
            await getattr(self, name)()
        except (VaultFull, NoSpace):
            self.happened["the vault was full"] += 1
        if evictor is self.world.evictor:
            self.note_vanished(evictor.evicted + evictor.expired - before, exactly=name not in MIXED)
        self.check_size()

    def note_vanished(self, let_go: int, *, exactly: bool) -> None:
        """What the evictor let go of is gone, and nothing else."""
        now_ns = self.world.clock.now_ns()
        vanished = 0
        for name, known in list(self.model.entries.items()):
            expired = 0 < known.expires_ns <= now_ns
            row = self.world.vault.catalog.get(Family.ENTRY, f"{name[0]}\0{name[1]}".encode())
            if row is None:
                demand(not known.pinned or expired, f"{name} is pinned and was evicted")
                self.model.change(name, None)
                self.happened["entries expired" if expired else "entries evicted"] += 1
                vanished += 1
        demand(
            vanished == let_go or (vanished < let_go and not exactly),
            f"{vanished} entries vanished, {let_go} were let go of",
        )

    def check_size(self) -> None:
        """Never more than the capacity, by one pack at most; and not more promised than there is."""
        reservations = self.world.vault.reservations
        used_bytes = self.world.vault.usage.used_bytes()
        demand(used_bytes <= self.capacity_bytes + self.world.longest_pack_bytes, f"{used_bytes} bytes are used")
        demand(reservations.free_bytes >= 0, f"{-reservations.free_bytes} bytes too many were promised")
        demand(reservations.reserved_bytes >= 0, "less than nothing is reserved")

    # The model.

    def living(self, name: tuple[str, str]) -> Known | None:
        """Return what a look-up should find."""
        known = self.model.entries.get(name)
        return known if known is not None and not 0 < known.expires_ns <= self.world.clock.now_ns() else None

    def promise(self, holder: str, what: Tree | Blob) -> None:
        """Something was acknowledged: it is durable, and stays until the holder goes away."""
        self.model.held.setdefault(holder, []).append(what)
        self.durable()

    def durable(self) -> None:
        """A flush was acknowledged; what others wrote while it waited may not be covered."""
        if not self._together:
            self.model.all_is_durable()

    def sender(self) -> Sender:
        """Return one of the clients."""
        holder = self.draw.choice(HOLDERS)
        if holder not in self.senders:
            self.senders[holder] = Sender(self.world, holder, self.unsaved)
        return self.senders[holder]

    def promised_missing(self, ids: list[ChunkId], missing: set[bytes]) -> None:
        """Nobody is told that a chunk is there that is known to be bad.

        A power loss may take that knowledge back: then the next reader finds out anew.
        """
        index = ChunkIndex(self.world.vault.catalog)
        for chunk_id in ids:
            if chunk_id not in missing and chunk_id in self.model.rotten:
                row = index.find(chunk_id)
                bad = row is None or row.state is ChunkState.QUARANTINED
                demand(not bad or self._together, "a bad chunk is said to be there, and would never heal")

    def give_up_staged(self, why: Exception) -> None:
        """What was written over a damaged content cannot be sealed: that is said, and its files are removed."""
        self.referee.heal()
        demand(self.model.bad, f"sealing failed, and nothing was damaged: {why}")
        for name in sorted(self.model.staged & self.model.dirs.keys()):
            self.model.loose.add(name)
            self.world.filesystem.discard(WORK, name)
            del self.model.dirs[name]
        self.model.staged.clear()
        self.happened["files over damaged ones given up"] += 1

    async def adopt(self, name: bytes) -> None:
        """Take over what a directory has."""
        if not self.world.exists(name):
            self.model.dirs.pop(name, None)
            return
        try:
            self.model.dirs[name] = {file: await self.world.read(name + b"/" + file) for file in self.world.names(name)}
        except IoFailed as exc:
            demand(self.model.bad, f"work/{name!r} cannot be read, and nothing was damaged: {exc}")
            self.model.loose.add(name)
            self.world.filesystem.discard(WORK, name)
            self.model.dirs.pop(name, None)

    async def _set_pin(self, *, pinned: bool) -> None:
        name = self.draw.choice(NAMES)
        known = self.living(name)
        try:
            if known is not None and self.world.vault.entries.exists(*name):
                self.model.change(name, Known(known.tree, known.created_ns, known.expires_ns, pinned))
            await self.world.vault.entries.set_pin(*name, pinned=pinned, who="model")
        except KeyMissing:
            demand(known is None or (self._together and not known.pinned), f"{name} is not found")
            return
        demand(known is not None, f"{name} was found, and should not be")
        self.durable()

    async def _reborn(self, *, power: bool) -> None:
        """Check what a start found, and that nothing that was acknowledged is lost."""
        for sender in self.senders.values():
            sender.close()
        self.senders.clear()
        recovery = self.world.vault.recovery
        demand(not recovery.short_packs and not recovery.missing_packs, f"committed bytes are gone: {recovery}")
        self.referee.heal()
        if power:
            self._adopt_entries()
        loose = sorted(self.model.loose)
        self.model.all_is_durable()
        if power:
            for name in loose:
                await self.adopt(name)
        # Nothing was let go of since: also what only a holder kept is there.
        for held in self.model.held.values():
            for each in held:
                if each.durable or not power:
                    await self.referee.check_held(each)
        self.model.holders_are_gone()
        await self.referee.check()

    def _adopt_entries(self) -> None:
        """An entry is as it was at some time since everything was durable."""
        for name, versions in self.model.versions.items():
            row = self.world.vault.catalog.get(Family.ENTRY, f"{name[0]}\0{name[1]}".encode())
            entry = None if row is None else self.world.vault.entries._rows.read(f"{name[0]}\0{name[1]}".encode())
            for known in reversed(versions):
                if (entry is None and known is None) or (entry and known and is_like(entry, known)):
                    break
            else:
                demand(False, f"{name} is none of what it was since it was durable")
            if known is None:
                self.model.entries.pop(name, None)
            else:
                self.model.entries[name] = known

    # The end.

    async def let_everything_go(self) -> None:
        """Nothing is wanted any more, and nothing stays."""
        world = self.world
        for sender in self.senders.values():
            sender.close()
        for holder in HOLDERS:
            world.vault.end_holder(holder)
        self.model.holders_are_gone()
        await self._settle()
        await self.referee.check()
        counted = {key[1:] for key, _ in world.vault.catalog.scan(Family.REF) if key[:1] == b"\x01"}
        live = set(world.vault.chunks.scan())
        demand(live <= counted, f"{len(live - counted)} chunks stay that nothing leads to")
        for scope, key in list(self.model.entries):
            entries = world.vault.entries
            world.views.hide(scope, key)
            if entries.exists(scope, key):
                await entries.remove(scope, key, who="model")
        await world.evictor.expire()
        for name in self.model.dirs:
            world.filesystem.discard(WORK, name)
        await self._settle()
        families = (Family.ENTRY, Family.USAGE, Family.REF, Family.DOOMED, Family.BLOB, Family.PAGE, Family.TREE)
        left = {each.value: count for each in families if (count := len(list(world.vault.catalog.scan(each))))}
        demand(not left, f"rows stay that nothing wants: {left}")
        demand(not list(world.vault.chunks.scan()), "chunks stay that nothing wants")
        # The sealer keeps a pack for the next time.
        stay = set(world.vault.packs.numbers()) - world.vault.grants.being_written()
        demand(not stay, f"packs stay that nothing wants: {stay}")

    async def _settle(self) -> None:
        world = self.world
        for _ in range(3):
            demand(await world.filesystem.sweep() == 0, "the trash was not emptied")
            world.clock.advance(2 * EPOCH_S)
            await world.vault.collector.collect()
        world.clock.advance(60)
        while (await world.vault.compactor.compact(least_dead_fraction=0.0001)).removed_packs:
            pass

    async def aclose(self) -> None:
        """Stop in order."""
        with real_threads():
            await self.world.aclose()
