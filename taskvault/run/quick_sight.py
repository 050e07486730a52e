"""A look at everything that a pathset names in as few calls as can be, with what is remembered of earlier ones."""

from __future__ import annotations

import os
import stat

from taskvault.run.digests import Digests
from taskvault.run.memory import Memory, Plan, identity_of
from taskvault.run.pathset import Look
from taskvault.run.states import Sight, state_of_directory
from tvfs.plugin_api import HashFunction

_STATE = int(Look.STATE)
_REMEMBERED = frozenset({_STATE, int(Look.TARGET)})
"""Looks whose states are kept."""


class QuickSight(Sight):
    """The same states as `Sight.states` has."""

    def __init__(self, root: bytes, hash_function: HashFunction, memory: Memory) -> None:
        super().__init__(root, Digests(hash_function, memory))
        self._memory = memory

    def planned_states(self, plan: Plan) -> list[bytes]:
        """Return the states of a pathset, in the order that the strong key has them; raise `OSError`."""
        pathset = plan.pathset
        states = [self.absent()] * len(pathset.items)
        for directory, names, numbers in plan.absences:
            place = self.place(directory)
            absent = self._memory.absent_names(place)
            if absent is None or names <= absent:
                continue
            for name, number in numbers:
                if name not in absent:
                    if self.status(place.rstrip(b"/") + b"/" + name) is None:
                        absent.add(name)
                    else:
                        states[number] = self.state(pathset.items[number])
        self._look_at_others(plan, states)
        return states + self.rest(pathset)

    def _look_at_others(self, plan: Plan, states: list[bytes]) -> None:
        known_states, root, user = self._memory.states, self._root + b"/", os.geteuid()
        # Of the first one, which is no later than that of any other: what has changed since is not steady.
        looked_ns = self._memory.now_ns()
        for number in plan.others:
            item = plan.pathset.items[number]
            look = item.look
            if look not in _REMEMBERED or not item.path:
                states[number] = self.state(item)
                continue
            place = item.path if item.path[0] == 0x2F else root + item.path
            try:
                status = self._found[place] = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError):
                self._found[place] = None
                states[number] = self.state(item)
                continue
            if look == _STATE and stat.S_ISDIR(status.st_mode) and place != self._root:
                states[number] = state_of_directory(status.st_mode, status.st_uid, user, status.st_rdev)
                continue
            identity = identity_of(status)
            known = known_states.get((place, look))
            if known is not None and known[0] == identity:
                states[number] = known[1]
                continue
            states[number] = state = self.state(item)
            if self._memory.is_steady(place, status, looked_ns):
                self._memory.keep_state(place, look, identity, state)
