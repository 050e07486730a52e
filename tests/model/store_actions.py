"""What is done to a vault and to its model: one method a step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from tests.model.inline_threads import real_threads
from tests.model.store_model import Blob, Known, Tree, demand, is_like
from tests.model.store_pair import HOLDERS, NAMES, Pair
from tests.model.store_sender import held_content
from tvfs import failpoints
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row
from tvfs.chunks.store import ChunkDamaged
from tvfs.filesystem.model import WORK
from tvfs.filesystem.posix_error import NoSpace
from tvfs.ingest.chunk_sender import IngestLost
from tvfs.packs.record import RECORD_HEADER_BYTES
from tvfs.vault.entries import KeyExists, KeyMissing, StoredEntry, StoredSnapshot
from tvfs.vault.reservations import VaultFull
from tvfs.vault.unwanted import EPOCH_S

DIRS = (b"one", b"two", b"three")
FILES = (b"f", b"g", b"h")
BACKGROUND = ("collect", "compact", "evict", "sweep")
FOREGROUND = (
    "send_chunks", "send_blob", "send_tree", "send_what_is_dead", "end_holder", "bind", "remove", "pin", "unpin",
    "use", "begin_reading", "wait", "attach", "detach",
)  # fmt: skip
COMPACTION = [point for point in failpoints.POINTS if point.startswith("compact.")]
COMMIT = [point for point in failpoints.POINTS if point.startswith("commit.")]


class Actions(Pair):
    """Steps.  A step that cannot be taken now does nothing."""

    # Storing.

    async def send_chunks(self) -> None:
        """Store chunks that nothing refers to."""
        sender = self.sender()
        raws = self.unsaved.chunks(self.draw)
        await sender.send_chunks(raws, self.promised_missing)
        for raw in raws:
            self.promise(sender.holder, Blob(held_content(self.world.vault, [raw]), raw))

    async def send_blob(self) -> None:
        """Store a content of several chunks."""
        sender = self.sender()
        chunks = self.unsaved.chunks(self.draw)
        content = await sender.send_content(chunks, self.promised_missing)
        self.promise(sender.holder, Blob(content, b"".join(chunks)))

    async def send_long_manifest(self) -> None:
        """Store one that is counted little by little, or in pages."""
        sender = self.sender()
        chunks = [b"%d" % number for number in range(self.draw.choice((270, 300, 600, 1100)))]
        content = await sender.send_content(chunks, self.promised_missing)
        self.promise(sender.holder, Blob(content, b"".join(chunks)))

    async def send_tree(self) -> None:
        """Store a directory, whose files may be shared with others."""
        sender = self.sender()
        files = self.unsaved.files(self.draw)
        snapshot = await sender.send_tree(files, self.promised_missing)
        tree = Tree(snapshot, {name: b"".join(chunks) for name, chunks in files.items()})
        self.promise(sender.holder, tree)

    async def send_what_is_dead(self) -> None:
        """Store again what was let go of and is still in a pack."""
        rows = list(self.world.vault.catalog.scan(Family.CHUNK))
        dead = [key for key, value in rows if decode_chunk_row(value).state is not ChunkState.LIVE]
        raws = [raw for key in dead if (raw := self.unsaved.known.get(key)) is not None][:40]
        if raws:
            sender = self.sender()
            chunks = self.draw.sample(raws, min(len(raws), 4))
            content = await sender.send_content(chunks, self.promised_missing)
            self.promise(sender.holder, Blob(content, b"".join(chunks)))
            self.happened["dead chunks sent again"] += len(chunks)

    async def send_and_die(self) -> None:
        """A commit that is cancelled, or whose owner dies, half way."""
        store = self.draw.choice((self.send_tree, self.send_blob, self.send_long_manifest, self.send_chunks))
        if self.draw.random() < 0.5:
            await self._cancel(store, self.draw.choice((1, 3, 9, 20, 40)))
            self.happened["commits cancelled"] += 1
            return
        world, lives = self.world, self.world._lives
        with world.dying_at(
            self.draw.choice(COMMIT), self.draw.randint(1, 2), power=(power := self.draw.random() < 0.5)
        ):
            await store()
        if world._lives > lives:
            await self._reborn(power=power)
            self.happened["deaths in a commit"] += 1

    async def end_holder(self) -> None:
        """A client goes away."""
        holder = self.draw.choice(HOLDERS)
        sender = self.senders.pop(holder, None)
        if sender is not None:
            sender.close()
        self.world.vault.end_holder(holder)
        self.model.held.pop(holder, None)

    # Entries.

    async def bind(self) -> None:
        """Save a tree under a key."""
        trees = [each for held in self.model.held.values() for each in held if isinstance(each, Tree)]
        if not trees:
            return
        tree = self.draw.choice(trees[-6:])
        name = self.draw.choice(NAMES)
        now_ns = self.world.clock.now_ns()
        ttl_s = self.draw.choice((0, 0, 0, 1, 10, 100))
        known = Known(tree, now_ns, now_ns + ttl_s * 10**9 if ttl_s else 0, pinned=self.draw.random() < 0.1)
        replace = self.draw.random() < 0.7
        old = self.living(name)
        each = tree.snapshot
        stored = StoredSnapshot(str(each.tree), str(each.attributes), each.index, each.files, each.size)
        entry = StoredEntry(
            *name, "saved", now_ns, now_ns, stored, expires_ns=known.expires_ns, pinned=known.pinned, cost_ns=5
        )
        entries, views = self.world.vault.entries, self.world.views
        try:
            if not replace and entries.exists(*name):
                raise KeyExists(*name)
            with views.changing(*name):
                views.hide(*name)
                views.show(entry)
                # Written before it first waits: so the model is changed before, too.
                self.model.change(name, known)
                await entries.put(entry, who="model", replace=replace)
        except KeyExists:
            demand(old is not None and not replace, f"{name} exists")
            return
        self.durable()
        self.happened["replaced" if old else "bound"] += 1

    async def remove(self) -> None:
        """Remove an entry."""
        name = self.draw.choice(NAMES)
        known = self.living(name)
        entries, views = self.world.vault.entries, self.world.views
        try:
            if not entries.exists(*name):
                raise KeyMissing(*name)
            with views.changing(*name):
                views.hide(*name)
                if known is not None:
                    self.model.change(name, None)
                await entries.remove(*name, who="model")
        except KeyMissing:
            demand(known is None or (self._together and not known.pinned), f"{name} is not found")
            return
        demand(known is not None, f"{name} was found though it had expired, or was never saved")
        self.durable()

    async def pin(self) -> None:
        """Let an entry never be evicted."""
        await self._set_pin(pinned=sum(known.pinned for known in self.model.entries.values()) < 3)

    async def unpin(self) -> None:
        """Let an entry be evicted again."""
        await self._set_pin(pinned=False)

    async def use(self) -> None:
        """Look an entry up and hold its content."""
        name = self.draw.choice(NAMES)
        known = self.living(name)
        found = self.world.vault.entries.get(*name, count_use=self.draw.random() < 0.7)
        if found is None:
            demand(known is None or (self._together and not known.pinned), f"{name} is not found")
            return
        demand(known is not None, f"{name} is found, and should not be")
        assert known is not None
        assert found.snapshot is not None
        demand(is_like(found, known), f"{name} is another than was saved")
        holder = self.draw.choice(HOLDERS)
        self.world.vault.leases.hold(holder, [found.snapshot.index])
        self.model.held.setdefault(holder, []).append(known.tree)
        self.happened["found"] += 1

    async def begin_reading(self) -> None:
        """Find content, and go on reading it without a lease: for an epoch it must stay."""
        name = self.draw.choice(NAMES)
        known = self.living(name)
        if known is not None and self.world.vault.entries.get(*name) is not None:
            self.model.reading.append((self.world.clock.monotonic_s() + EPOCH_S, known.tree))

    # Files.

    async def attach(self) -> None:
        """Attach a tree below `work/`."""
        trees = [each for held in self.model.held.values() for each in held if isinstance(each, Tree)]
        free = [name for name in DIRS if name not in self.model.dirs]
        if trees and free:
            tree = self.draw.choice(trees)
            self.model.loose.add(free[0])
            self.world.filesystem.attach(WORK, free[0], tree.snapshot)
            self.model.dirs[free[0]] = dict(tree.files)

    async def detach(self) -> None:
        """Remove a directory below `work/`."""
        if self.model.dirs:
            name = self.draw.choice(sorted(self.model.dirs))
            self.model.loose.add(name)
            self.world.filesystem.discard(WORK, name)
            del self.model.dirs[name]
            self.model.staged.discard(name)

    async def write(self) -> None:
        """Write a file anew."""
        name, file = self.draw.choice(DIRS), self.draw.choice(FILES)
        self.model.loose.add(name)
        self.model.staged.add(name)
        files = self.model.dirs.get(name)
        if files is None:
            self.world.mkdir(name)
            files = self.model.dirs[name] = {}
        if files.pop(file, None) is not None:
            self.world.unlink(name + b"/" + file)
        raw = b"".join(self.unsaved.chunks(self.draw))
        try:
            await self.world.write(name + b"/" + file, raw)
        except NoSpace:
            await self.adopt(name)
            raise
        files[file] = raw

    async def stage_over(self) -> None:
        """Overwrite the middle of a file that may be sealed."""
        self.referee.heal()
        places = [(name, file) for name, files in sorted(self.model.dirs.items()) for file in sorted(files)]
        places = [(name, file) for name, file in places if not self.model.is_rotten(self.model.dirs[name][file])]
        if not places:
            return
        name, file = self.draw.choice(places)
        raw = self.model.dirs[name][file]
        at, more = self.draw.randint(0, len(raw)), b"changed %d" % self.draw.randint(0, 3)
        self.model.loose.add(name)
        self.model.staged.add(name)
        try:
            await self.world.write(name + b"/" + file, more, offset=at)
        except NoSpace:
            await self.adopt(name)
            raise
        self.model.dirs[name][file] = raw[:at] + more + raw[at + len(more) :]

    async def seal(self) -> None:
        """Turn what was written into chunks."""
        with real_threads():
            try:
                sealed = await self.world.filesystem.seal_all()
            except (ChunkDamaged, IngestLost) as exc:
                self.give_up_staged(exc)
                return
        self.model.staged.clear()
        if sealed:
            self.durable()

    async def snapshot(self) -> None:
        """Have a directory as a tree."""
        if not self.model.dirs:
            return
        name = self.draw.choice(sorted(self.model.dirs))
        holder = self.draw.choice(HOLDERS)
        with real_threads():
            try:
                outcome = await self.world.filesystem.snapshot(self.world.ino(name), holder=holder)
            except (ChunkDamaged, IngestLost) as exc:
                self.give_up_staged(exc)
                return
        # Not acknowledged as durable: that comes with the entry that it is bound to.
        tree = Tree(outcome.snapshot, dict(self.model.dirs[name]), durable=False)
        self.model.held.setdefault(holder, []).append(tree)

    async def sweep(self) -> None:
        """Remove what is in the trash."""
        await self.world.filesystem.sweep()

    # Reclaiming.

    async def wait(self) -> None:
        """Let time pass."""
        self.world.clock.advance(self.draw.choice((0.1, 1.0, EPOCH_S, 10.0)))

    async def collect(self) -> None:
        """Let go of what nothing refers to."""
        self.happened["objects let go of"] += await self.world.vault.collector.collect()

    async def compact(self) -> None:
        """Make room of what is dead."""
        done = await self.world.vault.compactor.compact(
            least_dead_fraction=self.draw.choice((0.01, 0.1, 0.5)), merge_small=self.draw.random() < 0.1
        )
        self.happened["packs removed"] += done.removed_packs
        self.happened["bytes moved"] += done.moved_bytes

    async def die_while_collecting(self) -> None:
        """The process ends between two batches of the collector."""
        world, lives, power = self.world, self.world._lives, self.draw.random() < 0.5
        with world.dying_at("collect.after_batch", self.draw.randint(1, 6), power=power):
            await self.collect()
        if world._lives > lives:
            await self._reborn(power=power)
            self.happened["deaths while collecting"] += 1

    async def die_while_compacting(self) -> None:
        """The process ends, or the power goes, at any point of a compaction."""
        world, lives, power = self.world, self.world._lives, self.draw.random() < 0.6
        with world.dying_at(self.draw.choice(COMPACTION), 1, power=power):
            await self.compact()
        if world._lives > lives:
            await self._reborn(power=power)
            self.happened["deaths while compacting"] += 1

    async def evict(self) -> None:
        """Evict about so many bytes."""
        await self.world.evictor.evict(self.draw.choice((1, 5_000, 100_000)))

    async def expire(self) -> None:
        """Remove what has expired."""
        await self.world.evictor.expire()
        now_ns = self.world.clock.now_ns()
        rows = self.world.vault.entries.expired(1)
        demand(not rows or rows[0].expires_ns > now_ns - 10**8, "what has expired stayed")

    async def look_after(self) -> None:
        """Evict ahead of need, down to the low watermark, unless nothing more can be let go."""
        await self.world.reclaimer.look_after()
        reservations = self.world.vault.reservations
        high_bytes = int(0.1 * reservations.capacity_bytes)
        if reservations.free_bytes < high_bytes:
            demand(not self.world.vault.entries.lowest(1), "there was something to evict, and it is above the mark")
            self.happened["nothing left to evict"] += 1

    async def fill(self) -> None:
        """Save much that is new."""
        sender = self.sender()
        files = {b"%d" % number: [self.unsaved.new(self.draw, 40_000)] for number in range(self.draw.randint(1, 8))}
        snapshot = await sender.send_tree(files, self.promised_missing)
        self.promise(sender.holder, Tree(snapshot, {name: b"".join(chunks) for name, chunks in files.items()}))
        self._together = True
        self.model.may_be_evicted(NAMES)
        try:
            await self.bind()
        finally:
            self._together = False

    async def ask_at_the_limit(self) -> None:
        """All that is free may be promised, and not a byte more."""
        reservations = self.world.vault.reservations
        free_bytes = reservations.free_bytes
        if free_bytes < 0:
            return
        with suppress(VaultFull):
            reservations.reserve("model", free_bytes + 1)
            reservations.release("model")
            demand(False, "more was promised than is free")
        reservations.reserve("model", free_bytes)
        demand(reservations.free_bytes == 0, "all that is free is promised, and something is left")
        reservations.release("model")

    # What goes wrong.

    async def damage(self) -> None:
        """Change a bit of a live chunk; whoever reads it is told."""
        index = ChunkIndex(self.world.vault.catalog)
        busy = self.world.vault.grants.being_written()
        candidates = [
            (chunk_id, raw)
            for chunk_id in index.live()
            if (raw := self.unsaved.known.get(chunk_id)) and chunk_id not in self.model.rotten
        ]
        if not candidates or len(self.model.bad) > 3:
            return
        chunk_id, raw = self.draw.choice(candidates)
        row = index.find(chunk_id)
        assert row is not None
        at = row.location
        if at.pack in busy:
            return
        self.world.flip(at.pack, at.offset + RECORD_HEADER_BYTES, self.draw, at.stored_bytes)
        self.model.rotten.setdefault(chunk_id, (raw, set()))[1].add((at.pack, at.offset))
        demand(not await self.world.vault.check_chunk(chunk_id), "a damaged chunk was read as a good one")
        self.referee.heal()
        self.happened["chunks damaged"] += 1

    async def kill(self) -> None:
        """End the process."""
        self.world.kill()
        await self._reborn(power=False)

    async def lose_power(self) -> None:
        """Lose what was not flushed."""
        self.world.power_loss()
        await self._reborn(power=True)

    async def stop_and_start(self) -> None:
        """Stop in order."""
        for sender in self.senders.values():
            sender.close()
        with real_threads():
            await self.world.restart()
        await self._reborn(power=False)

    # Several at once.

    async def together(self) -> None:
        """Do some things while others go on in the background."""
        self._together = True
        self.model.may_be_evicted(NAMES)
        try:
            async with trio.open_nursery() as nursery:
                for name in self.draw.sample(BACKGROUND, self.draw.randint(1, 3)):
                    nursery.start_soon(self._tolerant, getattr(self, name))
                for _ in range(self.draw.randint(1, 4)):
                    for _ in range(self.draw.choice((0, 1, 5, 20))):
                        await trio.lowlevel.checkpoint()
                    await self._tolerant(getattr(self, self.draw.choice(FOREGROUND)))
        finally:
            self._together = False

    async def _tolerant(self, act: Callable[[], object]) -> None:
        try:
            await act()  # type: ignore[misc]
        except (VaultFull, NoSpace):
            self.happened["the vault was full"] += 1

    async def _cancel(self, act: Callable[[], object], turns: int) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tolerant, act)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
