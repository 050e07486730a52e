"""Which entries a path under the mount shows: who measures it wants to know what they take, entry and view together."""

from __future__ import annotations

from itertools import islice

from tvd.entry_views import RUN, SHOWN_RUN, SNAPSHOT_SCOPE
from tvfs.catalog.catalog import Family, prefix_end
from tvfs.vault.entries import StoredEntry
from tvfs.vault.names import NameInvalid
from tvfs.vault.pace import Pace
from tvfs.vault.references import TREE_KEY
from tvfs.vault.vault import Vault

SLICE = 256


async def shown_by(vault: Vault, path: str) -> list[bytes]:
    """Return what the entries that are shown at or below a path refer to: keys of trees, one for each entry."""
    place, *names = [part for part in path.split("/") if part] or [""]
    match place, names:
        case "", []:
            return await _trees(vault, None, kind=None)
        case "keys", []:
            return await _trees(vault, None, kind="saved")
        case "keys", [scope]:
            return await _trees(vault, _scope_of(scope), kind="saved")
        case "keys", [scope, key]:
            return _tree(vault, _scope_of(scope), key)
        case "snapshots", []:
            return await _trees(vault, SNAPSHOT_SCOPE, kind=None)
        case "snapshots", [name]:
            return _tree(vault, SNAPSHOT_SCOPE, name)
        case "runs", []:
            return await _trees(vault, None, kind=RUN)
        case "runs", [run]:
            return await _of_run(vault, run)
    return []


async def _trees(vault: Vault, scope: str | None, *, kind: str | None) -> list[bytes]:
    pace, found = Pace(), list[bytes]()
    after: tuple[str, str] | None = None
    while page := vault.entries.list_entries(scope, after=after, limit=SLICE):
        found += [each for entry in page if kind in (None, entry.kind) for each in _refers(entry)]
        after = (page[-1].scope, page[-1].key)
        await pace.breathe()
    return found


def _tree(vault: Vault, scope: str, key: str) -> list[bytes]:
    try:
        entry = vault.entries.get(scope, key)
    except NameInvalid:
        return []
    return [] if entry is None else _refers(entry)


async def _of_run(vault: Vault, run: str) -> list[bytes]:
    pace, start = Pace(), SHOWN_RUN
    while part := list(islice(vault.catalog.scan(Family.SYS, start, prefix_end(SHOWN_RUN)), SLICE)):
        for row_key, shown in part:
            if shown == run.encode("utf-8", "surrogateescape"):
                scope, _, key = row_key.removeprefix(SHOWN_RUN).decode().partition("\0")
                return _tree(vault, scope, key)
        start = part[-1][0] + b"\0"
        await pace.breathe()
    return []


def _refers(entry: StoredEntry) -> list[bytes]:
    return [] if entry.snapshot is None else [TREE_KEY + entry.snapshot.index]


def _scope_of(directory: str) -> str:
    return directory.replace("%2F", "/").replace("%25", "%")
