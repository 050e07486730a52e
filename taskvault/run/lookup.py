"""Find the stored result of a traced run: what is asked before anything runs, in whatever process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from taskvault.client import Client
from taskvault.errors import DaemonUnreachable, DaemonWedged
from taskvault.plugins import plugin_registry
from taskvault.protocol.messages import Entry, GetEntry
from taskvault.run.declaration import Declaration
from taskvault.run.digest_table import DigestTable
from taskvault.run.inputs import InputsUnusable
from taskvault.run.memory import Memory
from taskvault.run.mounted_digests import MountedDigests
from taskvault.run.nested import is_inside
from taskvault.run.pathset import PathsetsUnusable, strong_keys, unpack
from taskvault.run.quick_sight import QuickSight
from taskvault.run.refusals import RunPlainly, RunUnstored
from taskvault.run.request import RunRequest
from taskvault.run.steady import UnknownFileSystems
from taskvault.run.toolchain import ProgramMissing
from taskvault.run.traced_preparation import Prepared, prepare_traced
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import HashFunction


def prepare(client: Client, request: RunRequest, declaration: Declaration) -> Prepared:
    """Return what is known of a run before it starts; raise `RunPlainly` or `RunUnstored`."""
    if declaration.place.root == Path("/"):
        raise RunUnstored("its root is /; name the directory of the project with --root")
    try:
        return prepare_traced(client, request, declaration, _hash_function(client.welcome.hash))
    except ProgramMissing as exc:
        raise RunPlainly(None) from exc
    except (TaskVaultError, OSError) as exc:
        raise RunUnstored(f"what counts cannot be read ({exc})") from exc


def find(client: Client, prepared: Prepared, scope: str, memory: Memory, *, patience_s: float) -> Entry | None:
    """Return the result whose pathset has the states that are on disk now; raise `RunPlainly` or `RunUnstored`."""
    ask = _Asking(client, prepared, scope, patience_s)
    sight = ask.sight(memory)
    with _told_apart():
        # What was found the last time is asked for at once: whatever other pathsets there are, it would be right.
        likely = memory.likely_pathset(prepared.weak_hash)
        if likely is not None:
            entry = ask.result(likely, memory, sight)
            if entry is not None:
                return entry
        for encoded in ask.pathsets():
            entry = None if encoded == likely else ask.result(encoded, memory, sight)
            if entry is not None:
                memory.keep_likely(prepared.weak_hash, encoded)
                return entry
    return None


def standing_keys(client: Client, prepared: Prepared, scope: str, memory: Memory, *, patience_s: float) -> list[str]:
    """Return the keys of all results that could be found now, whether there are some or not; raise as `find`."""
    ask = _Asking(client, prepared, scope, patience_s)
    sight = ask.sight(memory)
    keys: list[str] = []
    with _told_apart():
        likely = memory.likely_pathset(prepared.weak_hash)
        for encoded in dict.fromkeys([*ask.pathsets(), *([likely] if likely is not None else [])]):
            keys += ask.keys(encoded, memory, sight)
    return keys


@contextmanager
def _told_apart() -> Iterator[None]:
    """Raise `RunPlainly` where there is no daemon, `RunUnstored` in other trouble; nothing for damaged pathsets."""
    try:
        yield
    except PathsetsUnusable:
        return
    except (DaemonUnreachable, DaemonWedged) as exc:
        raise RunPlainly(str(exc)) from exc
    except TaskVaultError as exc:
        raise RunUnstored(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class _Asking:
    client: Client
    prepared: Prepared
    scope: str
    patience_s: float

    def entry(self, keys: Sequence[str]) -> Entry | None:
        wanted = GetEntry(self.scope, keys[0], count_use=True, or_else=list(keys[1:]))
        reply = self.client.call(wanted, timeout_s=self.patience_s)
        if reply.unsteady is not None:
            self.prepared.unsteady[reply.unsteady.key] = reply.unsteady
        return reply.entry

    def sight(self, memory: Memory) -> QuickSight:
        return self.prepared.quick_sight(memory, MountedDigests(self.client, memory, patience_s=self.patience_s))

    def pathsets(self) -> list[bytes]:
        """Return those of all earlier runs, the latest first."""
        row = self.entry([self.prepared.weak_hash.hex()])
        return unpack(row.result) if row is not None and row.kind == "paths" else []

    def result(self, encoded: bytes, memory: Memory, sight: QuickSight) -> Entry | None:
        """Return the result of a run with this pathset, if there is one of the states that are on disk now."""
        keys = self.keys(encoded, memory, sight)
        return self.entry(keys) if keys else None

    def keys(self, encoded: bytes, memory: Memory, sight: QuickSight) -> list[str]:
        """Return the keys of such a result; none where that cannot be told."""
        prepared = self.prepared
        plan = memory.plan(encoded)
        prepared.own_view |= plan.own_view
        try:
            states = sight.planned_states(plan)
        except (OSError, InputsUnusable):
            return []
        prepared.items, prepared.states = plan.pathset.items, states
        bindings = prepared.whereabouts.bindings()
        keys = strong_keys(prepared.weak_hash, encoded, states, bindings, prepared.hash_function)
        return [key.hex() for key in keys]


def shared_memory(request: RunRequest, hash_function: HashFunction) -> Memory:
    """Return a fresh memory that knows which digests other processes have found.

    Inside a traced run it is alone, and keeps nothing: what is shared would be taken for an input of that run, and for
    an output; and what is mounted for an input.
    """
    if is_inside(request.environment):
        return Memory(file_systems=UnknownFileSystems())
    return Memory(DigestTable.open(hash_function))


@cache
def _hash_function(name: str) -> HashFunction:
    return plugin_registry().hash_function(name)
