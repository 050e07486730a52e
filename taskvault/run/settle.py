"""After a traced run: the pathset and its states as they were before it, and what it made.

What was looked at is looked at again, and must not have been changed since the run began: then it is as the command
saw it.  What the command itself changed is taken from what the tracer saw before each change.  Whatever cannot be known
that way is a reason not to store the result.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import msgspec

from taskvault.run.crates import stem_of
from taskvault.run.inputs import InputsUnusable
from taskvault.run.outputs import Output
from taskvault.run.pathset import PATHSET_FORMAT, Item, Look, Order, Pathset
from taskvault.run.places import Place, Places
from taskvault.run.sources import tracked_files
from taskvault.run.staging import is_staging
from taskvault.run.states import (
    DIRECTORY,
    FILE,
    LINK,
    Sight,
    Status,
    names_in,
    names_told,
    rest_of_states,
    told,
)
from taskvault.run.used import Change, Seen, Used
from tvfs.plugin_api import Before

_WAS_THERE = ~(Seen.ABSENCE | Seen.REFUSAL)


@dataclass(frozen=True, slots=True)
class Settled:
    """What is known of a run whose result may be stored."""

    pathset: Pathset
    states: list[bytes]
    outputs: list[Output]
    deleted: list[str]
    """Relative to the root; each was a file, a symlink or a directory that was empty in the end."""
    kept: list[str]
    """Outputs that have the permissions and the owner of what was there, if anything is; relative to the root."""
    filled: tuple[Pathset, list[bytes]] | None
    """The same run as the next will find its tools' caches, if this one put something into them."""


def settle(used: Used, places: Places, sight: Sight, began_ns: int, *, umask: int) -> Settled:
    """Return what may be stored; raise `InputsUnusable` with the reason if nothing may."""
    for reason in used.reasons:
        raise InputsUnusable(reason)
    return _Settling(used, places, sight, began_ns, umask).settle()


class _Settling:
    def __init__(self, used: Used, places: Places, sight: Sight, began_ns: int, umask: int) -> None:
        self._umask = umask
        self._used = used
        self._places = places
        self._sight = sight
        self._began_ns = began_ns
        self._items: dict[str, tuple[Look, bytes]] = {}
        self._times: dict[str, int] = {}
        self._kept: list[str] = []
        self._filled: dict[str, tuple[Look, bytes]] = {}
        self._changed_in: dict[str, dict[str, Change]] = {}
        for path, change in used.changes.items():
            self._changed_in.setdefault(os.path.dirname(path), {})[path] = change

    def settle(self) -> Settled:
        self._check_rewritten()
        outputs, deleted = self._made()
        upward, bound = self._look_above()
        for path, seen in sorted(self._used.seen.items()):
            self._settle_path(path, seen)
        self._settle_crates()
        self._check_directories()
        ordered = sorted((self._places.item_path(path), path) for path in self._items)
        numbers = {path: number for number, (_, path) in enumerate(ordered)}
        orders = self._orders(numbers)
        times = {numbers[path]: time for path, time in self._times.items() if path in numbers}

        def told_of(found: dict[str, tuple[Look, bytes]]) -> tuple[Pathset, list[bytes]]:
            items = [Item(item_path, int(found[path][0])) for item_path, path in ordered]
            pathset = Pathset(PATHSET_FORMAT, items, upward, orders, bound)
            states = [found[path][1] for _, path in ordered]
            return pathset, states + rest_of_states(pathset, times, self._sight)

        filled = told_of(self._items | self._filled) if self._filled else None
        return Settled(*told_of(self._items), outputs, deleted, self._kept, filled)

    # --- what was made -----------------------------------------------------------------------------------------------

    def _check_rewritten(self) -> None:
        for path, what in self._used.rewritten.items():
            status = self._now(path)
            if path in self._used.changes:
                raise InputsUnusable(f"{path} was there before, was {what} and then replaced")
            if status is None or self._is_new(path, status):
                raise InputsUnusable(f"{path} was there before and was {what}: what it held is not known any more")

    def _made(self) -> tuple[list[Output], list[str]]:
        outputs: dict[str, bool] = {}
        deleted: list[str] = []
        for path, change in self._used.changes.items():
            now = self._now(path)
            before = change.before
            if self._places.place(path) is not Place.PROJECT:
                self._check_outside(path, change, now)
                continue
            if path == self._places.root:
                raise InputsUnusable("it made or removed the root itself")
            if now is None and change.only_where_nothing_was and is_staging(path):
                continue
            if change.only_where_nothing_was:
                self._put(path, Look.ABSENCE, None)
            elif before is None or before.mode:
                self._check_links(path, before)
            if change.only_where_something_was and before is not None:
                self._put(path, Look.ABSENCE, Status.before(before))
            self._put_directory(os.path.dirname(path))
            if now is None:
                if before is not None and before.mode:
                    deleted.append(os.fsdecode(self._places.item_path(path)))
                elif not change.only_where_nothing_was:
                    # Had something been there, its removal would be part of the result.
                    self._check_temporary(path, before)
                    self._put(path, Look.ABSENCE, None)
                continue
            if not change.only_where_nothing_was:
                self._put(path, Look.ROOM, None if before is None else Status.before(before))
            if change.keeps_attributes and stat.S_ISREG(now.st_mode):
                self._keep_attributes(path, before)
            outputs[path] = stat.S_ISDIR(now.st_mode)
            if not (outputs[path] or stat.S_ISREG(now.st_mode) or stat.S_ISLNK(now.st_mode)):
                raise InputsUnusable(f"it made {path}, which is neither a file, a directory nor a symbolic link")
        return list(self._outermost(outputs)), deleted

    def _keep_attributes(self, path: str, before: Before | None) -> None:
        self._kept.append(os.fsdecode(self._places.item_path(path)))
        if before is not None and before.mode and stat.S_IMODE(before.mode) != 0o666 & ~self._umask:
            # Which permissions it has where nothing is, this run does not tell.
            self._put(path, Look.ABSENCE, Status.before(before))

    def _check_links(self, path: str, before: Before | None) -> None:
        if before is not None and before.links > 1 and stat.S_ISREG(before.mode):
            raise InputsUnusable(f"{path} had another name too, which now may have another content")

    def _put_directory(self, path: str) -> None:
        """Nothing could be made or removed but in a directory that is there."""
        if path == self._places.root or self._used.is_own(path):
            return
        self._merge(path, Look.ABSENCE, self._sight.state(Item(os.fsencode(path), int(Look.ABSENCE))))

    def _check_temporary(self, path: str, before: Before | None) -> None:
        if before is None and self._used.seen.get(path, Seen(0)) & ~Seen.ABSENCE:
            raise InputsUnusable(f"it removed {path}, and what that was before is not known")

    def _check_outside(self, path: str, change: Change, now: os.stat_result | None) -> None:
        if now is not None:
            raise InputsUnusable(f"it wrote {path}, which lies outside of its root {self._places.root}")
        if change.before is not None and change.before.mode:
            raise InputsUnusable(f"it removed {path}, which lies outside of its root {self._places.root}")

    def _outermost(self, outputs: dict[str, bool]) -> Iterator[Output]:
        made = {path for path, is_directory in outputs.items() if is_directory}
        for path, is_directory in sorted(outputs.items()):
            above = os.path.dirname(path)
            while above not in made and len(above) > len(self._places.root):
                above = os.path.dirname(above)
            if above not in made:
                yield Output(os.fsdecode(self._places.item_path(path)), is_directory)

    # --- what was looked at ------------------------------------------------------------------------------------------

    def _settle_path(self, path: str, seen: Seen) -> None:
        change = self._used.changes.get(path)
        look = _look_of(seen)
        if seen == Seen.ABSENCE and path in self._used.filled:
            self._settle_filled(path)
        elif change is None and seen == Seen.ABSENCE and self._used.is_own(path):
            # It was looked for before its directory was made.
            self._put(path, Look.ABSENCE, None)
        elif change is None:
            self._settle_unchanged(path, seen, look)
        elif change.before is None:
            if seen != Seen.ABSENCE or not change.only_where_nothing_was:
                raise InputsUnusable(f"it looked at {path} and then changed it: what was there is not known any more")
            self._put(path, Look.ABSENCE, None)
        else:
            self._settle_changed(path, seen, Status.before(change.before))

    def _check_directories(self) -> None:
        """A directory that another was moved over shows files that are old, and that the command did not see."""
        known: set[str] = set(self._places.above)
        for path in self._used.seen:
            directory = os.path.dirname(path)
            while directory not in known and not self._used.is_own(directory):
                known.add(directory)
                now = self._now(directory)
                if now is not None and now.st_ctime_ns >= self._began_ns > now.st_mtime_ns:
                    raise InputsUnusable(f"the directory {directory} was moved while the command ran")
                directory = os.path.dirname(directory)

    def _settle_changed(self, path: str, seen: Seen, before: Status | None) -> None:
        if seen & (Seen.TARGET | Seen.REFUSAL) and before is not None:
            raise InputsUnusable(f"it looked at {path} and then replaced it")
        if before is not None and before.kind == FILE and seen & Seen.CONTENT:
            raise InputsUnusable(f"it read {path} and then replaced it: what it held is not known any more")
        look = Look.ABSENCE if before is None else Look.REPLACED
        if seen & Seen.TIMES or (seen & Seen.TIMES_OF_FILE and before is not None and before.kind != DIRECTORY):
            look |= Look.TIMES
        if seen & Seen.NAMES:
            look |= Look.NAMES
        if before is not None:
            self._times[path] = before.mtime_ns
        self._put(path, look, before)

    def _settle_unchanged(self, path: str, seen: Seen, look: Look) -> None:
        now = self._now(path)
        if now is None and seen & _WAS_THERE:
            raise InputsUnusable(f"{path} is gone, and not by the command")
        if now is not None:
            is_directory = stat.S_ISDIR(now.st_mode)
            if seen & Seen.TIMES_OF_FILE and not is_directory:
                look |= Look.TIMES
            # What has the digest of its content for a name is only ever made the same, and marked as used.
            if not is_directory and self._is_new(path, now) and not self._places.names_its_content(path):
                raise InputsUnusable(f"the input {path} changed while the command ran")
            if seen & Seen.CONTENT and not (is_directory or stat.S_ISREG(now.st_mode) or stat.S_ISLNK(now.st_mode)):
                raise InputsUnusable(f"it read {path}, which is no file")
            if (
                is_directory
                and self._is_new(path, now)
                and path not in self._changed_in
                and seen & (Seen.NAMES | Seen.TIMES)
            ):
                raise InputsUnusable(f"the directory {path} changed while the command ran")
            if is_directory and path in self._changed_in and seen & Seen.TIMES:
                raise InputsUnusable(f"it recorded when {path} was changed, and changed it")
            self._times[path] = now.st_mtime_ns
        if not look:
            return
        names = look & Look.NAMES and now is not None and path in self._changed_in
        known = self._names_before(path) if names else None
        try:
            state = self._sight.state(Item(os.fsencode(path), int(look & ~Look.NAMES if known is not None else look)))
        except OSError as exc:
            raise InputsUnusable(f"the input {path} cannot be read ({exc.strerror})") from exc
        if known is not None:
            state = _with_names(state, look, known)
        self._merge(path, look, state)

    def _settle_filled(self, path: str) -> None:
        """It looked for something in a tool's cache and put it there, so it is there when it runs again."""
        if self._places.names_its_content(path):
            return
        self._put(path, Look.ABSENCE, None)
        now = self._now(path)
        if now is not None:
            look = Look.ABSENCE if stat.S_ISDIR(now.st_mode) else Look.STATE
            try:
                self._filled[path] = (look, self._sight.state(Item(os.fsencode(path), int(look))))
            except OSError as exc:
                raise InputsUnusable(f"{path} cannot be read ({exc.strerror})") from exc

    def _settle_crates(self) -> None:
        for stem in {stem_of(path) for path in self._used.seen if os.path.dirname(path) in self._used.searched} - {""}:
            made = [path for path in self._changed_in.get(os.path.dirname(stem), ()) if path.startswith(stem)]
            if any(stem_of(path) == stem for path in made):
                continue  # its own crate, which it does not look for
            if made:
                raise InputsUnusable(f"it made {made[0]}, whose name begins like that of a crate that it used")
            self._merge(stem, Look.ALIKE, self._sight.state(Item(os.fsencode(stem), int(Look.ALIKE))))

    def _names_before(self, directory: str) -> object:
        """Return what a listing told before the command changed the directory."""
        try:
            names = names_in(os.fsencode(directory))
        except OSError as exc:
            raise InputsUnusable(f"the directory {directory} cannot be read ({exc.strerror})") from exc
        for path, change in self._changed_in[directory].items():
            name = os.fsencode(os.path.basename(path))
            names.pop(name, None)
            if change.only_where_nothing_was:
                continue
            if change.before is None:
                raise InputsUnusable(f"it listed {directory}, and whether {path} was there before is not known")
            before = Status.before(change.before)
            if before is not None:
                names[name] = before.kind if before.kind in (FILE, DIRECTORY, LINK) else "?"
        for name in names:
            place = os.path.join(os.fsencode(directory), name)
            if os.fsdecode(place) in self._used.changes:
                continue
            try:
                status = os.lstat(place)
            except OSError as exc:
                raise InputsUnusable(f"the directory {directory} changed while the command ran") from exc
            if (
                not stat.S_ISDIR(status.st_mode)
                and self._is_new(directory, status)
                and os.fsdecode(place) not in self._used.rewritten
            ):
                raise InputsUnusable(f"the directory {directory} changed while the command ran")
        return names_told(names)

    def _put(self, path: str, look: Look, before: Status | None) -> None:
        """Take in a path whose state is known from before the run."""
        parts: list[object] = []
        for each in Look(look):
            parts.append(self._names_of_removed(path, before) if each is Look.NAMES else told(each, before))
        self._merge(path, look, msgspec.msgpack.encode(parts))

    def _names_of_removed(self, path: str, before: Status | None) -> object:
        if before is None or before.kind != DIRECTORY:
            return told(Look.ABSENCE, before)
        # It was empty when it was removed: all that it held was changed before, each name by itself.
        names = {}
        for below, change in self._changed_in.get(path, {}).items():
            if change.only_where_nothing_was:
                continue
            if change.before is None:
                raise InputsUnusable(f"it listed {path}, and whether {below} was there before is not known")
            status = Status.before(change.before)
            if status is not None:
                names[os.fsencode(os.path.basename(below))] = status.kind
        return names_told(names)

    def _merge(self, path: str, look: Look, state: bytes) -> None:
        known = self._items.get(path)
        if known is None:
            self._items[path] = (look, state)
            return
        # In the order of looks, as every state has its parts.
        parts = dict(zip(Look(known[0]), msgspec.msgpack.decode(known[1]), strict=True))
        parts |= dict(zip(Look(look), msgspec.msgpack.decode(state), strict=True))
        both = known[0] | look
        self._items[path] = (both, msgspec.msgpack.encode([parts[each] for each in Look(both)]))

    # --- above the root ----------------------------------------------------------------------------------------------

    def _look_above(self) -> tuple[list[bytes], bool]:
        """Fold what was looked for in all directories above the root; drop what only says that they are there."""
        above, root = self._places.above, self._places.root
        seen = self._used.seen
        for directory in above:
            if directory in seen and not seen[directory] & ~(Seen.STATUS | Seen.ABSENCE):
                del seen[directory]
        near: dict[str, set[str]] = {}
        for path in seen:
            if not self._places.in_root(path):
                directory = next(each for each in above if each == "/" or path.startswith(f"{each}/") or path == each)
                if directory != "/":
                    near.setdefault(path[len(directory) + 1 :], set()).add(directory)
        for names in self._names_in_root_and_at_top(seen, root):
            near.setdefault(names, set())
        upward, bound = [], False
        for names, directories in sorted(near.items()):
            if directories and not names:
                bound = True
                continue
            searched = len(directories) > 1 or os.path.join(root, names) in seen
            everywhere = all(seen.get(os.path.join(each, names)) == Seen.ABSENCE for each in above)
            if everywhere:
                upward.append(os.fsencode(names))
                for each in above:
                    del seen[os.path.join(each, names)]
            elif directories and (searched or not self._below_home(directories, names)):
                bound = True
            elif not directories:
                bound = bound or len(above) > 1
        return upward, bound

    def _names_in_root_and_at_top(self, seen: dict[str, Seen], root: str) -> Iterator[str]:
        """Yield what was looked for both in the root and in `/`, as a search upwards does."""
        for path in list(seen):
            if path.startswith("/") and not self._places.in_root(path) and os.path.join(root, path[1:]) in seen:
                yield path[1:]

    def _below_home(self, directories: Iterable[str], names: str) -> bool:
        home = self._places.home
        return bool(home) and all(os.path.join(each, names).startswith(f"{home.rstrip('/')}/") for each in directories)

    # --- times -------------------------------------------------------------------------------------------------------

    def _orders(self, numbers: dict[str, int]) -> list[Order]:
        groups = {
            frozenset(path for path in paths if self._is_file(path, numbers)) for paths in self._used.stated.values()
        }
        groups = {group for group in groups if len(group) > 1}
        if not groups:
            return []
        tracked = tracked_files(self._places.root)
        orders = []
        for group in sorted(map(sorted, groups)):
            made = [numbers[path] for path in group if path not in tracked]
            if made:
                orders.append(Order(made, [numbers[path] for path in group if path in tracked]))
        return orders

    def _is_file(self, path: str, numbers: dict[str, int]) -> bool:
        if path not in numbers or path not in self._times:
            return False
        change = self._used.changes.get(path)
        if change is not None:
            return change.before is not None and stat.S_ISREG(change.before.mode)
        now = self._now(path)
        return now is not None and stat.S_ISREG(now.st_mode)

    # --- the disk ----------------------------------------------------------------------------------------------------

    def _now(self, path: str) -> os.stat_result | None:
        try:
            return self._sight.status(os.fsencode(path))
        except OSError as exc:
            raise InputsUnusable(f"{path} cannot be looked at ({exc.strerror})") from exc

    def _is_new(self, path: str, status: os.stat_result) -> bool:
        if path.startswith(("/proc/", "/sys/")):
            return False  # their times say when the kernel was first asked
        return max(status.st_mtime_ns, status.st_ctime_ns) >= self._began_ns


@cache
def _look_of(seen: Seen) -> Look:
    look = Look(0)
    if seen & (Seen.CONTENT | Seen.STATUS):
        look |= Look.STATE
    if seen & Seen.NAMES:
        look |= Look.NAMES
    if seen & Seen.TARGET:
        look |= Look.TARGET
    if seen & Seen.TIMES:
        look |= Look.TIMES
    if seen & Seen.REFUSAL:
        look |= Look.REFUSAL
    if seen & Seen.ABSENCE:
        look |= Look.ABSENCE
    return look


def _with_names(state: bytes, look: Look, names: object) -> bytes:
    """Put a listing where it belongs among the parts of a state."""
    parts = dict(zip(Look(look & ~Look.NAMES), msgspec.msgpack.decode(state), strict=True))
    parts[Look.NAMES] = names
    return msgspec.msgpack.encode([parts[each] for each in Look(look)])
