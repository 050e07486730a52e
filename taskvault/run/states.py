"""What is found where a pathset says to look: one state for each item, which the strong key is made of.

Times, owners and inode numbers are in a state only where the pathset says so.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import msgspec

from taskvault.run.crates import others_alike
from taskvault.run.own_view import as_seen_by
from taskvault.run.pathset import Item, Look, Order, Pathset
from taskvault.run.staging import REPLAY_PREFIX
from tvfs.plugin_api import Before

NOTHING = "-"
FILE = "f"
DIRECTORY = "d"
LINK = "l"

_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK, stat.S_IFIFO: "p", stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c", stat.S_IFBLK: "b",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Status:
    """What is at a path."""

    mode: int
    size: int
    mtime_ns: int
    owner: int
    group: int
    links: int = 1
    device: int = 0
    """Of a device file."""

    @property
    def kind(self) -> str:
        """One letter."""
        return _KINDS.get(stat.S_IFMT(self.mode), "?")

    @classmethod
    def of(cls, status: os.stat_result) -> Status:
        """Of what is there now."""
        return cls(
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            status.st_rdev,
        )

    @classmethod
    def before(cls, before: Before) -> Status | None:
        """Of what was there before a command changed it."""
        if not before.mode:
            return None
        return cls(before.mode, before.size, before.mtime_ns, before.owner, before.group, before.links)


class Sight:
    """What is on disk now, each path looked at once.

    `digest_of` returns the hash of a file's content, given its path and status; it may raise `OSError`.  What the
    kernel says of a process itself is looked at as the process `caller` would see it, if that is not we.
    """

    def __init__(
        self, root: bytes, digest_of: Callable[[bytes, os.stat_result], bytes], caller: int | None = None
    ) -> None:
        self._root = root
        self._digest_of = digest_of
        self._caller = caller
        self._found: dict[bytes, os.stat_result | None] = {}
        self._listed: dict[bytes, dict[bytes, str]] = {}
        """Directories in which crates are looked for: many, in one listing."""

    def place(self, path: bytes) -> bytes:
        """Return the absolute path of an item."""
        if path.startswith(b"/"):
            return path if self._caller is None else as_seen_by(self._caller, path)
        return self._root + b"/" + path if path else self._root

    def status(self, place: bytes) -> os.stat_result | None:
        """Return what is there, None for nothing; raise `OSError` if that cannot be known."""
        return self._found[place] if place in self._found else self._look(place)

    def _look(self, place: bytes) -> os.stat_result | None:
        """Return what is there now, whatever was found before; raise `OSError` if that cannot be known."""
        try:
            self._found[place] = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            self._found[place] = None
        return self._found[place]

    def states(self, pathset: Pathset) -> list[bytes]:
        """Return the states of a pathset, in the order that the strong key has them; raise `OSError`."""
        return [self.state(item) for item in pathset.items] + self.rest(pathset)

    def rest(self, pathset: Pathset) -> list[bytes]:
        """Return the states that come after those of the items; raise `OSError`."""
        return rest_of_states(pathset, self.times(pathset), self)

    @staticmethod
    def absent() -> bytes:
        """Return the state of what was only looked for and is not there."""
        return msgspec.msgpack.encode([told(Look.ABSENCE, None)])

    def state(self, item: Item) -> bytes:
        """Return the state of one item; raise `OSError`."""
        place = self.place(item.path)
        found = self.status(place)
        status = None if found is None else Status.of(found)
        parts: list[object] = []
        for look in _looks(item.look):
            if look is Look.STATE and found is not None:
                parts.append(self._content(place, found))
            elif look is Look.NAMES:
                parts.append(self._names(place, status))
            elif look is Look.TARGET:
                parts.append(self._target(place, status))
            elif look is Look.ALIKE:
                parts.append(self._alike(place))
            elif look is Look.REFUSAL:
                above = self.status(os.path.dirname(place))
                parts.append([told(look, status), told(look, None if above is None else Status.of(above))])
            else:
                parts.append(told(look, status))
        return msgspec.msgpack.encode(parts)

    def times(self, pathset: Pathset) -> dict[int, int]:
        """Return when the items were changed that orders name."""
        wanted = {number for order in pathset.orders for number in (*order.made, *order.sources)}
        times = {}
        for number in wanted:
            found = self.status(self.place(pathset.items[number].path))
            times[number] = 0 if found is None else found.st_mtime_ns
        return times

    def none_above(self, names: bytes) -> bool:
        """Whether something is at `names` in no directory above the root."""
        directory = self._root
        while directory != b"/":
            directory = os.path.dirname(directory)
            if self.status(os.path.join(directory, names)) is not None:
                return False
        return True

    @property
    def parent(self) -> bytes:
        """The directory of the root."""
        return os.path.dirname(self._root)

    def _content(self, place: bytes, found: os.stat_result) -> object:
        status = Status.of(found)
        if status.kind == FILE:
            return [FILE, stat.S_IMODE(status.mode), mine(status), self._digest_of(place, found)]
        if status.kind == LINK:
            return [LINK, os.readlink(place)]
        if place == self._root and mine(status):
            # The permissions of others differ with how a checkout came to be, and say nothing to the caller.
            return [DIRECTORY, stat.S_IMODE(status.mode) & 0o7700, True]
        return told(Look.STATE, status)

    def _names(self, place: bytes, status: Status | None) -> object:
        if status is None or status.kind != DIRECTORY:
            return told(Look.ABSENCE, status)
        return names_told(names_in(place))

    def _alike(self, place: bytes) -> object:
        directory = os.path.dirname(place)
        if directory not in self._listed:
            try:
                self._listed[directory] = names_in(directory)
            except (FileNotFoundError, NotADirectoryError):
                self._listed[directory] = {}
        return others_alike(place, self._listed[directory])

    def _target(self, place: bytes, status: Status | None) -> object:
        return os.readlink(place) if status is not None and status.kind == LINK else told(Look.ABSENCE, status)


@cache
def _looks(look: int) -> tuple[Look, ...]:
    return tuple(Look(look))


def told(look: Look, status: Status | None) -> object:
    """Return what one look tells of a status, as it is stored; not for what needs content, names or targets."""
    if status is None:
        return "yes" if look is Look.ROOM else NOTHING
    kind, mode = status.kind, stat.S_IMODE(status.mode)
    if look is Look.ABSENCE:
        return kind
    if look is Look.ROOM:
        return "yes" if kind in (FILE, LINK) else kind
    if look is Look.TIMES:
        return [status.mtime_ns, mode, status.owner, status.group, status.links if kind == FILE else 0]
    if look is Look.REFUSAL:
        return [kind, mode, status.owner, status.group]
    if look is Look.REPLACED:
        return [kind, mode, mine(status), status.size if kind == FILE else 0]
    return [kind, mode, mine(status), status.device]


@lru_cache(4096)
def state_of_directory(mode: int, owner: int, user: int, device: int) -> bytes:
    """Return the state of a directory that is not the root, for `user`, where only `Look.STATE` was asked for."""
    return msgspec.msgpack.encode([[DIRECTORY, stat.S_IMODE(mode), owner == user, device]])


def mine(status: Status) -> bool:
    """Whether it belongs to the caller."""
    return status.owner == os.geteuid()


def names_in(place: bytes) -> dict[bytes, str]:
    """Return the names in a directory and their kinds; raise `OSError`."""
    names = {}
    with os.scandir(place) as entries:
        for entry in entries:
            if not entry.name.startswith(os.fsencode(REPLAY_PREFIX)):
                names[entry.name] = _kind_of(entry)
    return names


def names_told(names: Mapping[bytes, str]) -> object:
    """Return what a listing tells."""
    return [DIRECTORY, sorted(names.items())]


def rest_of_states(pathset: Pathset, times: Mapping[int, int], sight: Sight) -> list[bytes]:
    """Return the states that come after those of the items."""
    states = [order_state(order, times) for order in pathset.orders]
    states += [b"\1" if sight.none_above(names) else b"\0" for names in pathset.upward]
    return [*states, sight.parent] if pathset.bound_to_parent else states


def order_state(order: Order, times: Mapping[int, int]) -> bytes:
    """Return how files compare by when they were changed: the sources with each other do not."""
    moments = sorted({times[number] for number in order.made})
    rank = {moment: position for position, moment in enumerate(moments)}
    ranks: list[int] = [rank[times[number]] for number in order.made]
    for number in order.sources:
        # Between two moments of what was made: an odd number; at one of them: an even one.
        older = _count_older(moments, times[number])
        ranks.append(2 * older if times[number] in rank else 2 * older - 1)
    return msgspec.msgpack.encode(ranks)


def _count_older(moments: Sequence[int], moment: int) -> int:
    from bisect import bisect_left

    return bisect_left(moments, moment)


def _kind_of(entry: os.DirEntry[bytes]) -> str:
    if entry.is_symlink():
        return LINK
    if entry.is_file(follow_symlinks=False):
        return FILE
    if entry.is_dir(follow_symlinks=False):
        return DIRECTORY
    return "?"
