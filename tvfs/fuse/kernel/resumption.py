"""What lets another daemon go on with a session: each open noted, each request answered once even if it is sent twice.

A daemon that is killed leaves requests that it has read and not answered.  Its successor has the kernel send them
again.  Most may simply be done again.  Those that open are answered with the handle that was noted for them, if it was;
those that change names have been done if the catalog says that they were the last.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any

from tvfs import failpoints
from tvfs.filesystem.change import RequestMark
from tvfs.filesystem.model import Absent, Ino
from tvfs.filesystem.posix_error import IoFailed
from tvfs.filesystem.session_record import Agreed, Opened, RowKind, SessionRecord
from tvfs.fuse.kernel import protocol as p
from tvfs.fuse.kernel import replies
from tvfs.fuse.kernel.channel import Handler, Later
from tvfs.fuse.kernel.negotiation import Agreement
from tvfs.fuse.kernel.protocol import Opcode
from tvfs.fuse.kernel.requests import Header
from tvfs.fuse.service import FilesystemService
from tvfs.plugin_api.buffer import Buffer

Fields = tuple[Any, ...]
_DONE = b""
_NAMES_LAST = frozenset({Opcode.MKDIR, Opcode.MKNOD, Opcode.LINK, Opcode.CREATE})
"""Kinds whose answer names an inode and whose last field is its name; of a symlink the name comes first."""
_CHANGES = frozenset(
    {Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.RENAME2, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.SYMLINK}
)
_WRITE_ACCESS = 3
"""O_ACCMODE: anything but 0 may write."""


class Resumption:
    """Stands before the handlers of one session."""

    def __init__(self, service: FilesystemService, record: SessionRecord, mark: RequestMark, last: bytes) -> None:
        """`last` is the last request of which the catalog knows that it was done: session and number."""
        self._service = service
        self._record = record
        self._mark = mark
        self._last = int.from_bytes(last[8:], "big") if last[:8] == record.session else 0
        self._opened_by: dict[int, Opened] = {}
        self._agreement: Callable[[], Agreement | None] = lambda: None
        self._open_handler: Handler = _nothing

    def around(
        self, handlers: Mapping[Opcode, Handler], agreement: Callable[[], Agreement | None]
    ) -> dict[Opcode, Handler]:
        """Return the handlers, with what is noted before and after them."""
        self._agreement, self._open_handler = agreement, handlers[Opcode.OPEN]
        table = dict(handlers)
        for opcode in _CHANGES | _NAMES_LAST:
            table[opcode] = partial(self._change, opcode, table[opcode])
        for opcode in (Opcode.OPEN, Opcode.CREATE):
            table[opcode] = partial(self._open, opcode, table[opcode])
        for opcode in (Opcode.RELEASE, Opcode.RELEASEDIR):
            table[opcode] = partial(self._release, table[opcode])
        table[Opcode.INIT] = partial(self._init, table[Opcode.INIT])
        return table

    def inherit(self, rows: Iterable[Opened]) -> None:
        """The session was another daemon's, which had noted these handles."""
        self._opened_by = {row.request: row for row in rows}

    def _init(self, handler: Handler, header: Header, fields: Fields) -> Buffer | Later | None:
        answer = handler(header, fields)
        agreement = self._agreement()
        if agreement is not None:
            self._record.agree(
                Agreed(agreement.minor, agreement.flags, agreement.max_readahead, agreement.max_background)
            )
        return answer

    # --- changes of names

    def _change(self, opcode: Opcode, handler: Handler, header: Header, fields: Fields) -> Buffer | Later | None:
        if header.unique & p.RESENT and header.unique & ~p.RESENT == self._last:
            return self._answer_again(opcode, header, fields)
        answer = self._marked(handler, header, fields)
        failpoints.reach("request.changed")
        return answer

    def _marked(self, handler: Handler, header: Header, fields: Fields) -> Buffer | Later | None:
        request = self._record.session + (header.unique & ~p.RESENT).to_bytes(8, "big")
        self._mark.current = request
        try:
            answer = handler(header, fields)
        finally:
            self._mark.current = b""
        if answer is None or isinstance(answer, bytes | bytearray | memoryview):
            return answer
        return self._marked_later(request, answer)

    async def _marked_later(self, request: bytes, later: Later) -> Buffer:
        return await self._marked_in_each_step(request, later)

    @types.coroutine
    def _marked_in_each_step(self, request: bytes, later: Later) -> Generator[Any, Any, Buffer]:
        """Others run while it waits for room, and what they change is not the request's."""
        # Trio goes on with a task by `send` alone, also when it is cancelled.
        sent: Any = None
        while True:
            self._mark.current = request
            try:
                waited_for = later.send(sent)
            except StopIteration as ended:
                answer: Buffer = ended.value
                return answer
            finally:
                self._mark.current = b""
            sent = yield waited_for

    def _answer_again(self, opcode: Opcode, header: Header, fields: Fields) -> Buffer:
        """Answer what the last daemon did and did not live to answer."""
        if opcode not in _NAMES_LAST and opcode != Opcode.SYMLINK:
            return _DONE
        name = fields[0] if opcode == Opcode.SYMLINK else fields[-1]
        found = self._service.lookup(Ino(header.nodeid), name)
        if isinstance(found, Absent):
            raise IoFailed("What was made just before the daemon was replaced is not there any more.")
        answer = replies.entry(found.attributes, found.timeout_s)
        if opcode != Opcode.CREATE:
            return answer
        row = self._opened_by.pop(header.unique & ~p.RESENT, None)
        if row is not None:
            return answer + _opened_as(row)
        opened = self._open_handler(header._replace(nodeid=found.attributes.ino), (fields[0] & _WRITE_ACCESS, 0))
        assert isinstance(opened, bytes), "nobody can read a new file past us, so that opening it never waits"
        return answer + opened

    # --- handles

    def _open(self, opcode: Opcode, handler: Handler, header: Header, fields: Fields) -> Buffer | Later | None:
        if header.unique & p.RESENT and opcode != Opcode.CREATE:
            row = self._opened_by.pop(header.unique & ~p.RESENT, None)
            if row is not None:
                return _opened_as(row)
        answer = handler(header, fields)
        if answer is None or isinstance(answer, bytes | bytearray | memoryview):
            return answer if answer is None else self._note(opcode, header, fields, answer)
        return self._open_later(opcode, header, fields, answer)

    async def _open_later(self, opcode: Opcode, header: Header, fields: Fields, later: Later) -> Buffer:
        return self._note(opcode, header, fields, await later)

    def _note(self, opcode: Opcode, header: Header, fields: Fields, answer: Buffer) -> Buffer:
        handle, flags, backing_id = p.OPEN_OUT.unpack_from(answer, len(answer) - p.OPEN_OUT.size)
        ino = header.nodeid if opcode != Opcode.CREATE else int.from_bytes(answer[:8], sys.byteorder)
        if self._record.is_open(handle):
            return answer
        kind = RowKind.WRITER if fields[0] & _WRITE_ACCESS else RowKind.READER
        if flags & p.FOPEN_PASSTHROUGH:
            self._record.read_past_us(ino)
        self._record.opened(Opened(kind, handle, ino, flags, backing_id, header.unique & ~p.RESENT))
        failpoints.reach("request.opened")
        return answer

    def _release(self, handler: Handler, header: Header, fields: Fields) -> Buffer | Later | None:
        handle = fields[0]
        if header.unique & p.RESENT and not self._record.is_open(handle):
            return _DONE
        answer = handler(header, fields)
        # Not before: a successor would not know what is left to be done.
        self._record.released(handle)
        return answer


def _nothing(header: Header, fields: Fields) -> None:
    pass


def _opened_as(row: Opened) -> bytes:
    return p.OPEN_OUT.pack(row.number, row.flags, row.backing_id)
