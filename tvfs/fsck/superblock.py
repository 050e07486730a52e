"""The superblock: what a vault is.  Where it is gone, its copy takes its place, or what packs tell and guesses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.chunks.encoding import CodecUnknown, decode_chunk
from tvfs.clock import Clock
from tvfs.digest import FUNCTION_CODES
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.pack_scan import FoundRecord, records_in
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_reader import read_payload
from tvfs.packs.record import PackDamaged
from tvfs.packs.scan import read_pack_header
from tvfs.plugin_api import PluginRegistry
from tvfs.plugin_api.compression import CodecFailed
from tvfs.plugin_api.registry import PluginUnknown
from tvfs.vault.layout import Layout
from tvfs.vault.recovery import REBUILDING
from tvfs.vault.superblock import (
    FORMAT,
    KEY,
    Chunking,
    Superblock,
    SuperblockInvalid,
    VaultSettings,
    decode_superblock,
    encode_superblock,
)

CHECK = "superblock"
_RECORDS_TRIED = 64


def check_superblock(catalog: Catalog, layout: Layout, registry: PluginRegistry, clock: Clock) -> Iterator[Step]:
    """Yield what puts a superblock in place that can be read; raise `FormatTooNew` for one of a later version."""
    try:
        decode_superblock(catalog.get(Family.SYS, KEY))
    except SuperblockInvalid as exc:
        made, remedy = _found(layout, registry, clock)
        batch = Batch()
        batch.put(Family.SYS, KEY, encode_superblock(made))
        # It is written first when a vault is made: where it is gone, other rows are too.
        batch.put(Family.SYS, REBUILDING, b"")
        yield Step(Finding(CHECK, "superblock", str(exc).split(";")[0], remedy), batch)


def _found(layout: Layout, registry: PluginRegistry, clock: Clock) -> tuple[Superblock, str]:
    """Return a superblock, and where it is from."""
    packs = PackDirectory(layout.packs, b"")
    try:
        uuid = _uuid_of(packs)
        copy = _copy(layout)
        if copy is not None and uuid in (None, copy.uuid):
            return copy, f"its copy takes its place: vault {copy.uuid_text}, {copy.capacity_bytes} bytes"
        made = _guessed(packs, uuid, registry, clock)
    finally:
        packs.close()
    return made, (
        f"made anew: vault {made.uuid_text} and hash {made.hash}, as packs tell; "
        f"chunking {made.chunking.name}, compression {made.compression} and a size of "
        f"{made.capacity_bytes} bytes are guesses"
    )


def _copy(layout: Layout) -> Superblock | None:
    try:
        return decode_superblock(layout.superblock.read_bytes())
    except (OSError, SuperblockInvalid):
        return None


def _guessed(packs: PackDirectory, uuid: bytes | None, registry: PluginRegistry, clock: Clock) -> Superblock:
    records = list(_some_records(packs))
    defaults = VaultSettings()
    chunker = registry.chunker(defaults.chunking, defaults.chunking_parameters)
    return Superblock(
        format=FORMAT,
        uuid=uuid or uuid4().bytes,
        hash=_hash_of(packs, records, registry) or defaults.hash,
        chunking=Chunking(defaults.chunking, dict(chunker.parameters)),
        compression=defaults.compression,
        capacity_bytes=max(defaults.capacity_bytes, 2 * packs.allocated_bytes()),
        created_ns=clock.now_ns(),
    )


def _uuid_of(packs: PackDirectory) -> bytes | None:
    found: Counter[bytes] = Counter()
    for number in packs.numbers():
        with packs.open_reader(number) as descriptor:
            try:
                found[read_pack_header(descriptor).vault_uuid] += 1
            except PackDamaged:
                continue
    return found.most_common(1)[0][0] if found else None


def _some_records(packs: PackDirectory) -> Iterator[FoundRecord]:
    left = _RECORDS_TRIED
    for number in packs.numbers():
        with packs.open_reader(number) as descriptor:
            for record in records_in(descriptor, number, check_payloads=True):
                if record.intact:
                    yield record
                    left -= 1
                if not left:
                    return


def _hash_of(packs: PackDirectory, records: list[FoundRecord], registry: PluginRegistry) -> str | None:
    """Return the hash function under which some record's chunk has its id."""
    codecs = registry.codecs()
    for record in records:
        try:
            with packs.open_reader(record.location.pack) as descriptor:
                raw = decode_chunk(read_payload(descriptor, record.location, record.chunk_id), record.location, codecs)
        except (CodecFailed, CodecUnknown, PackDamaged):
            continue
        for name in FUNCTION_CODES:
            try:
                if registry.hash_function(name).digest(raw) == record.chunk_id:
                    return name
            except PluginUnknown:
                continue
    return None
