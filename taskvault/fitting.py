"""Whether content can fit into the vault at all: found out before anything is evicted for it.

Only content that is longer, as it lies, than the whole vault is looked at.  It may fit all the same, because the vault
has parts of it or compression makes it small; so it is cut, hashed and compressed once for nothing, until what would be
new fills the vault.  Reading it twice is the price of a rare case; losing every entry for a save that fails is higher.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from taskvault.client import Client
from taskvault.ingest_port import ClientIngestPort
from taskvault.protocol.messages import GetStatus
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.ingest.commit import IngestCommit
from tvfs.ingest.ingest import Ingest
from tvfs.ingest.port import IngestSettings
from tvfs.packs.location import Location
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import PACK_HEADER_BYTES, RECORD_HEADER_BYTES
from tvfs.plugin_api.buffer import Buffer


class LargerThanVault(TaskVaultError):
    """What is to be stored cannot fit, whatever is evicted for it."""

    def __init__(self, capacity_bytes: int) -> None:
        super().__init__(
            f"What is to be stored takes more than the whole vault of {capacity_bytes >> 20} MiB, compressed and"
            " without what the vault has already; nothing was stored and nothing evicted."
            " Store less at a time, or make a larger vault with `tv init --size`."
        )
        self.capacity_bytes = capacity_bytes


def check_fits(
    client: Client, settings: IngestSettings, base: Path, paths: Sequence[str], statuses: Iterable[os.stat_result]
) -> None:
    """Raise `LargerThanVault`, or what saving raises; `statuses` are of files that saving would store.

    Asks the owner only where the files are longer than a pack, and reads them only where they are than the vault.
    """
    size_bytes = _length(statuses)
    if size_bytes <= settings.pack_max_bytes:
        return
    capacity_bytes = client.call(GetStatus()).capacity_bytes
    if size_bytes <= capacity_bytes:
        return
    from tvfs.ingest.tree_walk import save_paths

    port = _Weighing(ClientIngestPort(client), settings.pack_max_bytes, capacity_bytes)
    with Ingest(port, settings) as ingest:
        save_paths(ingest, os.fsencode(base), [os.fsencode(path) for path in paths])


def _length(statuses: Iterable[os.stat_result]) -> int:
    """Return what the files take where they lie: each once, and holes not at all."""
    found: dict[tuple[int, int], int] = {}
    for status in statuses:
        if stat.S_ISREG(status.st_mode):
            found[status.st_dev, status.st_ino] = min(status.st_size, status.st_blocks * 512)
    return sum(found.values())


class _Weighing:
    """An `IngestPort` that asks the vault what it has, and counts what it would be given."""

    def __init__(self, port: ClientIngestPort, pack_max_bytes: int, capacity_bytes: int) -> None:
        self._port = port
        self._pack_max_bytes = pack_max_bytes
        self._capacity_bytes = capacity_bytes
        self._packs = 0

    def find_missing(self, chunk_ids: Sequence[ChunkId]) -> set[ChunkId]:
        return self._port.find_missing(chunk_ids)

    def open_pack(self) -> PackWriter:
        # The one before is full but for less than a record.
        self._packs += 1
        if (self._packs - 1) * self._pack_max_bytes > self._capacity_bytes:
            raise LargerThanVault(self._capacity_bytes)
        return _Counted(self._packs)

    def commit(self, commit: IngestCommit) -> list[bytes]:
        return []


class _Counted(PackWriter):
    """Has no file: only its length matters."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._size = PACK_HEADER_BYTES

    @property
    def synced_bytes(self) -> int:
        """All of it."""
        return self._size

    def append(self, chunk_id: ChunkId, raw_bytes: int, codec: int, payload: Buffer) -> Location:
        """Count a record."""
        stored_bytes = len(payload)
        location = Location(self.number, self._size, stored_bytes, raw_bytes, codec)
        self._size += RECORD_HEADER_BYTES + stored_bytes
        return location

    def close(self) -> None:
        """Nothing is held."""
