"""Requests that add to the catalog wait for room first: what they write cannot wait in the middle of it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from taskvault.protocol.messages import MarkEvictable, NameSnapshot, NoteRun, PrepareAttach, RecordRun, Reply, SaveEntry
from tvd.control.answer import Answer, Handler, Table
from tvfs.vault.room import Room

ROWS_BYTES = 16 << 10
"""What the rows of one request take at most beside what it brings, twice: see `Catalog.disk_use`."""

GROWING = frozenset({SaveEntry, RecordRun, NoteRun, NameSnapshot, PrepareAttach, MarkEvictable})
"""Not what removes things, though it writes rows too: that is for what is kept."""

S = TypeVar("S")


def with_room(table: Table[S], room: Room) -> Table[S]:
    """Return the same handlers, those of growing requests behind `room`; they may raise `VaultFull`."""
    return {kind: _waiting(handler, room) if kind in GROWING else handler for kind, handler in table.items()}


def _waiting(handler: Handler[S], room: Room) -> Handler[S]:
    async def handle(session: S, request: Any) -> Answer | Reply:
        async with room.reserved(ROWS_BYTES + 2 * len(msgspec.msgpack.encode(request))):
            return await handler(session, request)

    return handle
