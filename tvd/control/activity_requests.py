"""What the owner is doing, and the recording of what is asked over the socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskvault.protocol.maintenance import LiveOperation, Operation
from taskvault.protocol.message import Message
from taskvault.protocol.messages import (
    Activity,
    EntryReply,
    FindNewest,
    GetActivity,
    GetEntry,
    Reply,
)
from tvd.activity import ActivityRecorder, Live
from tvd.control.answer import Answer, Handler, Table
from tvd.control.vault_session import VaultSession
from tvd.stack_dump import HANDLES
from tvfs.filesystem.filesystem import Filesystem
from tvfs.vault.vault import Vault

NAMED_S = 0.5
"""Requests of the kernel that take longer are shown with their paths, which may have to be looked for."""
NAMED_MAX = 5
_ABOUT = ("key", "path", "name", "prefix", "run")
"""Fields of requests that say what they are about; the first that a request has is shown."""
_PROCESS = "process "


class ActivityRequests:
    """Answers `GetActivity` from one recorder."""

    def __init__(
        self, activity: ActivityRecorder, vault: Vault, filesystem: Filesystem, *, connections: Callable[[], int]
    ) -> None:
        self._activity = activity
        self._vault = vault
        self._filesystem = filesystem
        self._connections = connections
        self._paths: dict[Live, str | None] = {}
        """Of requests that have been under way for long; None: there is none, or none was found."""

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {GetActivity: self.get_activity}

    async def get_activity(self, session: VaultSession, request: GetActivity) -> Activity:
        """Some microseconds, longer where a request is to be named; the asking itself is not shown as under way."""
        activity = self._activity
        now_ns = activity.clock_ns()
        operations = [
            Operation(name, tally.count, tally.total_ns / 1e9, tally.slowest_s(now_ns))
            for name, tally in activity.tallies.items()
            if tally.count
        ]
        under_way = [each for each in activity.under_way() if each.name != GetActivity.__name__]
        await self._find_paths(under_way, now_ns)
        subject = self._subject if session.is_owner else _unnamed
        live = [LiveOperation(each.name, subject(each), (now_ns - each.began_ns) / 1e9) for each in under_way]
        return Activity(
            time_s=now_ns / 1e9,
            operations=operations,
            live=live,
            hits=activity.hits,
            misses=activity.misses,
            read_bytes=activity.read_bytes,
            written_bytes=activity.written_bytes,
            dirty_bytes=self._vault.usage.report().staging + self._filesystem.inspection.staged_in_rows_bytes(),
            open_files=self._filesystem.open_files(),
            connections=self._connections(),
        )

    def _subject(self, live: Live) -> str:
        if isinstance(live.subject, str):
            return live.subject
        number = _unnamed(live)
        path = self._paths.get(live)
        return number if path is None else f"{path} ({number})"

    async def _find_paths(self, under_way: Sequence[Live], now_ns: int) -> None:
        """Find the paths of the oldest requests of the kernel, each once."""
        old = [each for each in under_way if isinstance(each.subject, int) and now_ns - each.began_ns > NAMED_S * 1e9]
        self._paths = {each: self._paths[each] for each in old if each in self._paths}
        for each in old[:NAMED_MAX]:
            if each not in self._paths and isinstance(each.subject, int):
                is_handle = each.name in HANDLES
                path = await self._filesystem.inspection.find_place(each.subject, is_handle=is_handle)
                self._paths[each] = None if path is None else path.decode("utf-8", "backslashreplace")


def _unnamed(live: Live) -> str:
    """Return what is shown to who shares the vault: keys and paths are not for them."""
    if isinstance(live.subject, str):
        return live.subject[live.subject.rindex(_PROCESS) :].rstrip(")")
    return f"{'handle' if live.name in HANDLES else 'inode'} {live.subject}"


def watched(table: Table[VaultSession], activity: ActivityRecorder) -> Table[VaultSession]:
    """Return the same handlers, each request counted, timed and shown while it is under way."""
    return {kind: _watched(kind, handler, activity) for kind, handler in table.items()}


def _watched(kind: type[Message], handler: Handler[VaultSession], activity: ActivityRecorder) -> Handler[VaultSession]:
    tally, name = activity.tally(kind.__name__), kind.__name__
    looks_up = issubclass(kind, GetEntry | FindNewest)

    async def served(session: VaultSession, request: Message) -> Answer | Reply:
        under_way = Live(name, _subject_of(session, request), activity.clock_ns())
        activity.live.add(under_way)
        try:
            reply = await handler(session, request)
        finally:
            activity.live.discard(under_way)
            tally.add(under_way.began_ns, activity.clock_ns())
        if looks_up and getattr(request, "count_use", False) and isinstance(reply, EntryReply):
            activity.hits += reply.entry is not None
            activity.misses += reply.entry is None
        return reply

    return served


def _subject_of(session: VaultSession, request: Message) -> str:
    about = next((getattr(request, field) for field in _ABOUT if getattr(request, field, None)), None)
    who = f"{_PROCESS}{session.peer.pid}"
    return f"{about} ({who})" if about else who
