"""A look at everything that a pathset names in as few calls as can be, with what is remembered of earlier ones."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from taskvault.run.digests import Digests, Told
from taskvault.run.many_looks import TOLD_BYTES, differing, looks, told_followed, told_itself
from taskvault.run.memory import Memory, Plan, Seen, identity_of
from taskvault.run.pathset import Look
from taskvault.run.states import Sight, state_of_directory
from tvfs.plugin_api import HashFunction

_STATE = int(Look.STATE)
_REMEMBERED = frozenset({_STATE, int(Look.TARGET)})
"""Looks whose states are kept."""


class QuickSight(Sight):
    """The same states as `Sight.states` has."""

    def __init__(self, root: bytes, hash_function: HashFunction, memory: Memory, told: Told | None = None) -> None:
        super().__init__(root, Digests(hash_function, memory, told))
        self._memory = memory
        # No later than any look: what has changed since is not steady, in whichever pathset it was read.
        self._looked_ns = memory.now_ns()

    def planned_states(self, plan: Plan) -> list[bytes]:
        """Return the states of a pathset, in the order that the strong key has them; raise `OSError`."""
        # Whatever goes wrong in the middle, nothing is known that is half old and half new.
        is_known, seen = self._root in plan.seen, plan.seen.pop(self._root, None)
        count = len(plan.absences) + len(plan.others)
        wanted: Iterable[int] = range(count)
        if seen is None:
            told = bytearray(TOLD_BYTES * count if is_known else 0)
            seen = Seen(told, [self.absent()] * len(plan.pathset.items), set())
        else:
            told_now = looks(self._root, plan.paths, count)
            if told_now is not None:
                wanted = sorted(seen.anew.union(differing(seen.told, told_now)))
        self._look_at_absences(plan, seen, [number for number in wanted if number < len(plan.absences)])
        self._look_at_others(plan, seen, [number for number in wanted if number >= len(plan.absences)])
        if not is_known:
            self._memory.make_room_for_seen()
        plan.seen[self._root] = seen if is_known else None
        states = list(seen.states)
        for number in plan.of_root:
            states[number] = self.state(plan.pathset.items[number])
        return states + self.rest(plan.pathset)

    def _look_at_absences(self, plan: Plan, seen: Seen, wanted: Iterable[int]) -> None:
        states, absence = seen.states, self.absent()
        for look in wanted:
            directory, names, numbers = plan.absences[look]
            place = self.place(directory)
            absent = self._memory.absent_names(place)
            known = names if absent.names is None else absent.names
            kept = absent.kept
            for name, number in numbers:
                # Looked at now, not by an earlier pathset: the identity of the directory is newer than that.
                if name in known or self._look(place.rstrip(b"/") + b"/" + name) is None:
                    states[number] = absence
                    if absent.names is not None:
                        absent.names.add(name)
                else:
                    states[number] = self.state(plan.pathset.items[number])
                    kept = False
            if seen.told:
                _note(seen, look, told_followed(absent.identity), kept)

    def _look_at_others(self, plan: Plan, seen: Seen, wanted: Iterable[int]) -> None:
        states, known_states, root, user = seen.states, self._memory.states, self._root + b"/", os.geteuid()
        for look_number in wanted:
            number = plan.others[look_number - len(plan.absences)]
            item = plan.pathset.items[number]
            look = item.look
            place = item.path if item.path[0] == 0x2F else root + item.path
            status = self._look(place)
            kept = look in _REMEMBERED
            if status is None or not kept:
                states[number] = self.state(item)
            elif look == _STATE and stat.S_ISDIR(status.st_mode) and place != self._root:
                states[number] = state_of_directory(status.st_mode, status.st_uid, user, status.st_rdev)
            else:
                identity = identity_of(status)
                known = known_states.get((place, look))
                if known is not None and known[0] == identity:
                    states[number] = known[1]
                else:
                    states[number] = state = self.state(item)
                    kept = self._memory.is_steady(place, status, self._looked_ns)
                    if kept:
                        self._memory.keep_state(place, look, identity, state)
            if seen.told:
                _note(seen, look_number, told_itself(status), kept)


def _note(seen: Seen, look: int, told: bytes, kept: bool) -> None:
    """Note what a look told, and whether its states are known as long as it tells the same."""
    seen.told[look * TOLD_BYTES : (look + 1) * TOLD_BYTES] = told
    (seen.anew.discard if kept else seen.anew.add)(look)
