"""The real parts of a vault on a catalog in memory and packs in a directory, and what kills and power losses leave."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trio.testing import MockClock

from tvd.config import ReclaimConfig
from tvd.entry_views import EntryViews
from tvd.eviction import Evictor
from tvd.reclaim import Reclaimer
from tvfs import failpoints
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.packs.record import PACK_HEADER_BYTES
from tvfs.testing.memory_vault import MemoryWorld
from tvfs.vault.ranking import Ranking


class DrivenClock(ManualClock):
    """The clock of trio's loop, which moves when told to or when everybody sleeps."""

    def __init__(self, mock: MockClock) -> None:
        super().__init__()
        self._mock = mock
        self._start_ns = super().now_ns()

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._start_ns + round(self._mock.current_time() * 1e9)

    def monotonic_s(self) -> float:
        """Seconds; small, so that adding and subtracting is exact enough."""
        return self._mock.current_time()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._mock.jump(seconds)


class Died(BaseException):
    """The process ends here; what it left was put aside."""


class SyncedLengths:
    """How much of each file was synced: what is beyond may be gone after a power loss."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}
        self._fdatasync = os.fdatasync

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notice every fdatasync for the length of the block."""

        def noting(descriptor: int) -> None:
            self._fdatasync(descriptor)
            found = os.fstat(descriptor)
            self._lengths[found.st_ino] = found.st_size

        os.fdatasync = noting
        try:
            yield
        finally:
            os.fdatasync = self._fdatasync

    def of(self, path: Path) -> int:
        """Return how much of a file is sure to be there."""
        found = path.stat()
        return min(found.st_size, self._lengths.get(found.st_ino, 0))

    def copied(self, old: Path, new: Path) -> None:
        """Note that a file was copied as it would be found."""
        self._lengths[new.stat().st_ino] = self.of(old)


class StoreWorld(MemoryWorld):
    """A vault, its filesystem, views, evictor and reclaimer: the owner without a mount and without connections."""

    def __init__(self, home: Path, draw: random.Random, mock: MockClock, *, capacity_bytes: int) -> None:
        self.draw = draw
        self.synced = SyncedLengths()
        self._homes = home
        self._lives = 0
        self._left: tuple[Path, MemoryCatalog] | None = None
        first = self._next_home()
        first.mkdir()
        super().__init__(first, settings=FilesystemSettings(), capacity_bytes=capacity_bytes, clock=DrivenClock(mock))

    @property
    def longest_pack_bytes(self) -> int:
        """A pack may be as long as this."""
        return self.vault.reservations.pack_bytes

    def kill(self) -> None:
        """End the process as kill -9 does, and start again."""
        super().kill()

    def power_loss(self) -> None:
        """Lose unflushed batches from some point on, and what was not synced of packs, and start again."""
        self._abandon()
        self._lose(self.home, self.synced)
        self.catalog = self._after_power_loss(self.catalog)
        self.boot += "'"
        self._open()

    @contextmanager
    def dying_at(self, point: str, nth: int, *, power: bool) -> Iterator[None]:
        """Die at the `nth` time that the block reaches a failpoint; then go on as the process that starts next."""
        left = [nth]

        def act() -> None:
            left[0] -= 1
            if not left[0]:
                self._put_aside(power=power)
                raise Died

        failpoints.arm(point, act)
        try:
            yield
        except BaseException as exc:
            if not _is_death(exc):
                raise
        finally:
            failpoints.disarm_all()
        if self._left is not None:
            self._abandon()
            shutil.rmtree(self.home)
            self.home, self.catalog = self._left
            self._left = None
            if power:
                self.boot += "'"
            self._open()

    def flip(self, number: int, offset: int, draw: random.Random, length: int) -> None:
        """Change one bit of a pack."""
        with open(self.home / "packs" / f"{number:016x}.pack", "r+b") as pack:
            at = offset + draw.randrange(length)
            pack.seek(at)
            (byte,) = pack.read(1)
            pack.seek(at)
            pack.write(bytes([byte ^ 1 << draw.randrange(8)]))

    def _put_aside(self, *, power: bool) -> None:
        home = self._next_home()
        shutil.copytree(self.home, home)
        for pack in (self.home / "packs").iterdir():
            self.synced.copied(pack, home / "packs" / pack.name)
        catalog = self.catalog
        if power:
            self._lose(home, self.synced)
            self._left = (home, self._after_power_loss(catalog))
        else:
            self._left = (home, catalog.crash_copy(durable_only=False))

    def _lose(self, home: Path, synced: SyncedLengths) -> None:
        if self.draw.random() < 0.3:  # the disk may have kept all of it
            return
        for pack in (home / "packs").iterdir():
            os.truncate(pack, max(synced.of(pack), PACK_HEADER_BYTES))

    def _after_power_loss(self, catalog: MemoryCatalog) -> MemoryCatalog:
        kept = self.draw.choice((0, 0, self.draw.randint(0, catalog.unflushed)))
        return catalog.crash_copy(durable_only=True, unflushed_kept=kept)

    def _next_home(self) -> Path:
        self._lives += 1
        return self._homes / f"{self._lives}"

    def _open(self) -> None:
        super()._open()
        vault = self.vault
        self.views = EntryViews(vault.catalog, self.filesystem, vault.entries)
        self.views.repair()
        vault.entries.ranks.use(Ranking(None, self.clock), {})
        self.evictor = Evictor(vault.entries, self.views, self.clock, vault.slices, others=[self.filesystem.evictables])
        self.reclaimer = Reclaimer(
            room=vault.room,
            evictor=self.evictor,
            collector=vault.collector,
            compactor=vault.compactor,
            settings=ReclaimConfig(),
            clock=self.clock,
            sweep=self.filesystem.sweep,
        )
        vault.room.make_room = self.reclaimer.make_room


def _is_death(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_death, exc.exceptions))
    return isinstance(exc, Died)
