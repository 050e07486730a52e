"""Requests that check: content against its hashes, the audit log against its chain."""

from __future__ import annotations

from itertools import islice

import trio

from taskvault.protocol.maintenance import AuditLine
from taskvault.protocol.messages import (
    AuditRecords,
    AuditVerified,
    HoldersNamed,
    NameHolders,
    ReadAudit,
    Verified,
    VerifyAudit,
    VerifySome,
)
from tvd.control.answer import Table
from tvd.control.privacy import check_owner
from tvd.control.vault_session import VaultSession
from tvd.control.wire import Rejected
from tvd.damage_holders import holders_of
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row
from tvfs.digest import HASH_BYTES, ChunkId
from tvfs.filesystem.filesystem import Filesystem
from tvfs.packs.pack_reader import record_bytes
from tvfs.vault.audit import AuditBroken, decode_record
from tvfs.vault.vault import Vault

SLICE = 256
"""Rows looked at before others get their turn: 1 ms."""
MOST_BYTES = 64 << 20
"""Read for one answer."""
GROUP_BYTES = 1 << 20
"""Read and verified in one thread; a reader who waits for the same processor waits no longer than that takes, 2 ms."""
MOST_RECORDS = 10_000
MOST_HOLDERS_OF = 10_000


class CheckingRequests:
    """Answers them from one vault."""

    def __init__(self, vault: Vault, filesystem: Filesystem) -> None:
        self._vault = vault
        self._filesystem = filesystem

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {
            VerifySome: self.verify_some,
            NameHolders: self.name_holders,
            ReadAudit: self.read_audit,
            VerifyAudit: self.verify_audit,
        }

    async def verify_some(self, session: VaultSession, request: VerifySome) -> Verified:
        """What is in quarantine already counts as bad, and is not read."""
        if not 0 < request.most_bytes <= MOST_BYTES:
            raise Rejected(f"{request.most_bytes} bytes cannot be verified at once, at most {MOST_BYTES}")
        if request.after and len(request.after) != HASH_BYTES:
            raise Rejected(f"a chunk id has {HASH_BYTES} bytes")
        rows, after = await self._rows_after(request.after, request.most_bytes)
        bad = [chunk_id for chunk_id, row in rows.items() if row.state is ChunkState.QUARANTINED]
        live = {chunk_id: row for chunk_id, row in rows.items() if row.state is ChunkState.LIVE}
        for group in _groups(live):
            bad += await self._vault.check_chunks(group)
        read_bytes = sum(record_bytes(row.location) for row in live.values())
        return Verified(after, len(live), read_bytes, list(bad))

    async def name_holders(self, session: VaultSession, request: NameHolders) -> HoldersNamed:
        """Looks through everything once or twice, in the background of everybody else."""
        check_owner(session, "what holds a piece of content")
        if len(request.chunk_ids) > MOST_HOLDERS_OF:
            raise Rejected(f"at most {MOST_HOLDERS_OF} chunks can be asked about at once")
        return HoldersNamed(await holders_of(self._vault, self._filesystem, request.chunk_ids))

    async def read_audit(self, session: VaultSession, request: ReadAudit) -> AuditRecords:
        """A record that cannot be read is shown as one, so that the others can be."""
        check_owner(session, "its audit log")
        if not 1 <= request.limit <= MOST_RECORDS:
            raise Rejected(f"{request.limit} records cannot be read at once, at most {MOST_RECORDS}")
        found: list[AuditLine] = []
        for seq, stored in self._vault.audit.stored(before=request.before):
            if len(found) == request.limit:
                break
            found.append(_line(seq, stored))
            if len(found) % SLICE == 0:
                await trio.lowlevel.checkpoint()
        return AuditRecords(found)

    async def verify_audit(self, session: VaultSession, request: VerifyAudit) -> AuditVerified:
        """Ends at the first record that is not what was written."""
        try:
            return AuditVerified(await self._vault.audit.verify_in_slices())
        except AuditBroken as exc:
            return AuditVerified(exc.seq - 1, exc.seq, exc.reason)

    async def _rows_after(self, after: bytes, most_bytes: int) -> tuple[dict[ChunkId, ChunkRow], bytes | None]:
        found: dict[ChunkId, ChunkRow] = {}
        left_bytes = most_bytes
        start = after + b"\0" if after else b""
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = list(islice(self._vault.catalog.scan(Family.CHUNK, start), SLICE))
            for key, value in part:
                row = decode_chunk_row(value)
                found[ChunkId(key)] = row
                left_bytes -= record_bytes(row.location) if row.state is ChunkState.LIVE else 0
                if left_bytes <= 0:
                    return found, key
            if len(part) < SLICE:
                return found, None
            start = part[-1][0] + b"\0"
            await trio.lowlevel.checkpoint()


def _groups(rows: dict[ChunkId, ChunkRow]) -> list[list[ChunkId]]:
    """Return chunks as they lie on the disk, some at a time."""
    groups: list[list[ChunkId]] = []
    group_bytes = GROUP_BYTES
    for chunk_id in sorted(rows, key=lambda each: (rows[each].location.pack, rows[each].location.offset)):
        length = rows[chunk_id].location.raw_bytes
        if group_bytes + length > GROUP_BYTES:
            groups.append([])
            group_bytes = 0
        groups[-1].append(chunk_id)
        group_bytes += length
    return groups


def _line(seq: int, stored: bytes) -> AuditLine:
    try:
        record = decode_record(stored)
    except ValueError:
        return AuditLine(seq, 0, "unreadable", "", "", "", "its bytes are no record: `tv audit verify` says more")
    # Its number is that of its row, whatever it says itself: whoever reads page after page goes on from there.
    return AuditLine(seq, record.time_ns, record.action, record.scope, record.key, record.who, record.detail)
