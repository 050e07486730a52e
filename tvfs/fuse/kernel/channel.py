"""Takes requests from the descriptor, has them answered, and writes the answers.

One task reads; what can be answered at once is answered by it, without a pass through the scheduler, into the same
buffer again and again.  What has to wait becomes a task, at most `waiting_max` of them: then reading stops until one is
done.  No answer waits for another request, so that this cannot stand still.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog
import trio

from tvfs.fuse.kernel import replies
from tvfs.fuse.kernel.protocol import BUFFER_BYTES, MalformedRequest, Opcode
from tvfs.fuse.kernel.requests import SHAPES, Header, parse_header
from tvfs.fuse.refusals import errno_of
from tvfs.fuse.turns import Turns
from tvfs.plugin_api.buffer import Buffer

Later = Coroutine[Any, Any, Buffer]
Handler = Callable[[Header, tuple[Any, ...]], Buffer | Later | None]
"""Returns the payload of the answer, or what will; None for what is not answered.  May raise."""

READ_UNASKED = 8
"""How many requests are read in a row without looking first; a look costs as much as half of a read."""
_SHORT_BYTES = 512
"""An answer up to this long is put together before it is written: writing two parts takes 0.1 µs more."""
_BUFFERS = (bytes, bytearray, memoryview)
_log = structlog.get_logger()
_TRY_AGAIN = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOENT})
"""Nothing to read after all: taken back while we were on our way to it (ENOENT: while it was being read)."""
_OVER = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE})
"""Unmounted; ended by force; the last ones come from a socket in place of the kernel."""
_SIGKILL_PENDING = 1 << 8
_NAMES = {int(opcode): opcode.name.lower() for opcode in Opcode}


class Channel:
    """One open session."""

    def __init__(
        self, descriptor: int, handlers: Mapping[Opcode, Handler], counts: dict[str, int], *, waiting_max: int
    ) -> None:
        """Counts the requests of each kind in `counts`."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._table = {
            int(opcode): (handler, opcode.name.lower(), SHAPES[opcode])
            for opcode, handler in {**handlers, Opcode.INTERRUPT: self._interrupt}.items()
        }
        self._waiting_max = waiting_max
        self._waiting: dict[int, tuple[Header, trio.CancelScope]] = {}
        """Each request that is being answered later, by its number, and what ends the wait."""
        self._one_done = trio.Event()
        self._buffers: list[memoryview] = []
        self._intake = trio.CancelScope()
        self._counts = counts
        counts.update(dict.fromkeys(_NAMES.values(), 0))

    async def serve(self) -> None:
        """Answer requests until the session is over or `stop` is called, then what was begun."""
        async with trio.open_nursery() as nursery:
            with self._intake:
                await self._take_requests(nursery)

    def stop(self) -> None:
        """Take no more requests."""
        self._intake.cancel()

    async def _take_requests(self, nursery: trio.Nursery) -> None:
        turns, buffer, unasked = Turns(), self._take_buffer(), 0
        while True:
            while len(self._waiting) >= self._waiting_max:
                self._one_done = trio.Event()
                await self._one_done.wait()
            if unasked:
                # They come one upon the other: the next is read without asking whether it is there.
                unasked -= 1
            elif await turns.wait_readable(self._descriptor):
                unasked = READ_UNASKED
            try:
                length = os.readv(self._descriptor, (buffer,))
            except OSError as exc:
                unasked = 0
                if exc.errno in _TRY_AGAIN:
                    continue
                if exc.errno in _OVER:
                    return
                raise
            if not length:
                return
            message = buffer[:length]
            try:
                header = parse_header(message)
            except MalformedRequest as exc:
                # Without a number nobody can be answered.
                _log.error("request without a proper header", reason=str(exc))
                continue
            later = self._answer(header, message)
            if later is not None:
                if header.opcode == Opcode.WRITE:
                    # Its data lies in the buffer.
                    kept, buffer = buffer, self._take_buffer()
                    nursery.start_soon(self._answer_later, header, later, self._expect(header), kept)
                else:
                    nursery.start_soon(self._answer_later, header, later, self._expect(header), None)

    def _answer(self, header: Header, message: memoryview) -> Later | None:
        """Answer at once, or return what will."""
        entry = self._table.get(header.opcode)
        if entry is None:
            self._send(replies.failure(header.unique, errno.ENOSYS))
            return None
        handler, name, shape = entry
        self._counts[name] += 1
        try:
            answer = handler(header, shape.parse(header, message))
        # Whatever a handler raises, the kernel waits for an answer; `errno_of` logs what nobody raises on purpose.
        except Exception as exc:  # noqa: BLE001
            self._refuse(header, exc)
            return None
        if answer is None:
            return None
        # Asked this way round: whether something is a coroutine takes half a microsecond to find out.
        if answer.__class__ is bytes or isinstance(answer, _BUFFERS):
            self._reply(header[2], answer)
            return None
        return answer

    def _expect(self, header: Header) -> trio.CancelScope:
        scope = trio.CancelScope()
        self._waiting[header.unique] = header, scope
        return scope

    async def _answer_later(
        self, header: Header, later: Later, scope: trio.CancelScope, kept: memoryview | None
    ) -> None:
        answer: Buffer | None = None
        failed: Exception | None = None
        try:
            with scope:
                answer = await later
        # As in `_answer`.
        except Exception as exc:  # noqa: BLE001
            failed = exc
        del self._waiting[header.unique]
        self._one_done.set()
        if kept is not None:
            self._buffers.append(kept)
        if failed is not None:
            self._refuse(header, failed)
        elif answer is None:
            self._send(replies.failure(header.unique, errno.EINTR))
        else:
            self._reply(header.unique, answer)

    def _interrupt(self, header: Header, fields: tuple[Any, ...]) -> None:
        """Stop reading for somebody who was killed.

        Any other signal interrupts too, and then the answer is waited for: no program expects EINTR from a file.  And
        only reads are broken off: of all else nobody could tell whether it has happened.
        """
        waiting = self._waiting.get(fields[0])
        if waiting is not None and waiting[0].opcode == Opcode.READ and _is_dying(waiting[0].pid):
            waiting[1].cancel()

    def _refuse(self, header: Header, exc: Exception) -> None:
        self._send(replies.failure(header.unique, errno_of(_NAMES[header.opcode], exc)))

    def _reply(self, unique: int, payload: Buffer) -> None:
        head = replies.header(unique, len(payload))
        if len(payload) <= _SHORT_BYTES:
            self._send(head + payload)
        else:
            self._send(head, payload)

    def _send(self, *parts: Buffer) -> None:
        try:
            os.writev(self._descriptor, parts)
        except OSError as exc:
            # ENOENT: the request was given up when the session was aborted.
            if exc.errno not in _OVER and exc.errno != errno.ENOENT:
                _log.error("an answer was not taken", reason=str(exc), bytes=sum(len(part) for part in parts))

    def _take_buffer(self) -> memoryview:
        # Mapped rather than allocated, so that pages that no request has reached take no memory.
        return self._buffers.pop() if self._buffers else memoryview(mmap.mmap(-1, BUFFER_BYTES))


def _is_dying(pid: int) -> bool:
    """Whether a process has been killed and only waits for us; of one that cannot be seen from here nobody knows."""
    if not pid:
        return False
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("SigPnd:", "ShdPnd:")) and int(line.split()[1], 16) & _SIGKILL_PENDING:
                return True
    except OSError:
        return True
    return False
