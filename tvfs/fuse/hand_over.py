"""Handing a mount from one daemon to the next: what is kept for it, and whether it can be taken over.

While no daemon runs, a descriptor store (systemd's, or `tvd.caretaker`) has the session's descriptor and its record.
The kernel then lets clients wait.  See docs/design/transport.md.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import Protocol

from tvfs.errors import TaskVaultError
from tvfs.filesystem.change import RequestMark
from tvfs.filesystem.session_record import SessionRecord
from tvfs.fuse.kernel.negotiation import ALWAYS, PASSTHROUGH, RESEND, WRITEBACK
from tvfs.fuse.mount_point import detach, mount_source
from tvfs.fuse.mount_table import mounts_at, without_touching
from tvfs.fuse.settings import MountSettings

SESSION_NAME = "session"
RECORD_NAME = "record"
_KNOWN = sum(1 << capability.bit for capability in (*ALWAYS, WRITEBACK, PASSTHROUGH))


class HandOverRefused(TaskVaultError):
    """A mount that was kept cannot be taken over."""

    def __init__(self, point: str, reason: str) -> None:
        self.point = point
        super().__init__(
            f"The mount at {point} was kept and cannot be taken over: {reason}; "
            "it is mounted anew, and programs that had files open on it see errors: start them again."
        )


class DescriptorStore(Protocol):
    """Keeps duplicates of descriptors for the next daemon."""

    def keep(self, name: str, descriptor: int) -> None:
        """Keep one more."""
        ...

    def drop(self, name: str) -> None:
        """Close what was kept under the name."""
        ...


class HandOver:
    """One session's; the owner's trio thread only."""

    def __init__(
        self, store: DescriptorStore, record: SessionRecord, session: int | None = None, *, last_request: bytes = b""
    ) -> None:
        """`session` is the descriptor of a session that another daemon began, which `record` is of.

        `last_request`, from the catalog, is the last one before this that changed names.
        """
        self._store = store
        self.record = record
        self.session = session
        """Owned until somebody serves it."""
        self.asked = False
        """Whether the owner is to end without an unmount."""
        self.done = False
        """Whether it has."""
        self.mark = RequestMark()
        self.last_request = last_request

    @property
    def inherited(self) -> SessionRecord | None:
        """The record of a session that is to be taken over."""
        return None if self.session is None else self.record

    @property
    def has_passthrough(self) -> bool:
        """Whether files may be read past us in a session that is to be taken over."""
        agreed = None if self.session is None else self.record.agreed
        return agreed is not None and bool(agreed.flags >> PASSTHROUGH.bit & 1)

    def check(self, mount_point: str, settings: MountSettings) -> None:
        """Raise `HandOverRefused` unless the session that is inherited can be served on."""
        point, record = without_touching(mount_point), self.record
        agreed = record.agreed
        reason = ""
        mounted = mounts_at(point)[-1:]
        if settings.transport != "kernel":
            reason = f'it needs `[mount] transport = "kernel"`, not "{settings.transport}"'
        elif agreed is None:
            reason = "the last daemon ended before it had begun to serve it"
        elif not mounted or (mounted[0].device, mounted[0].source) != (record.device, mount_source(settings.vault)):
            reason = "something else is mounted there, or nothing"
        elif self.session is None or _is_over(self.session):
            reason = "the kernel has ended the session"
        elif agreed.flags & ~_KNOWN:
            reason = "the last daemon agreed with the kernel on what this version does not know"
        elif self.last_request[:8] != record.session:
            reason = "the vault has been repaired or used without the mount since"
        elif not record.complete:
            reason = "more was open than the last daemon could note"
        elif not record.settled and not agreed.flags >> RESEND.bit & 1:
            reason = (
                "requests that were not answered are lost, because the kernel cannot send them again (Linux 6.9 can)"
            )
        if reason:
            raise HandOverRefused(point, reason)

    def began(self, descriptor: int, point: str) -> None:
        """A session was mounted: from now on it outlives us."""
        for mount in mounts_at(point)[-1:]:
            self.record.mounted(mount.device)
            self._store.keep(RECORD_NAME, self.record.descriptor)
            self._store.keep(SESSION_NAME, descriptor)

    def ended(self) -> None:
        """The session is over."""
        self._store.drop(SESSION_NAME)
        self._store.drop(RECORD_NAME)


async def give_up(store: DescriptorStore, session: int, mount_point: str, vault: str) -> None:
    """Let go of a session that was kept and take its mount away, so that everybody who waits for it is told."""
    point = without_touching(mount_point)
    # By whom it is served nobody can say, but the vault is ours: nobody else serves one that is mounted from it.
    if any(mount.source == mount_source(vault) for mount in mounts_at(point)[-1:]):
        with suppress(TaskVaultError):
            await detach(point)
    for name in (SESSION_NAME, RECORD_NAME):
        store.drop(name)
    os.close(session)


def _is_over(session: int) -> bool:
    poll = select.poll()
    poll.register(session, 0)
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))
