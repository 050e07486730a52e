"""What removing a path under the mount means: a file of the live tree, a saved key, a snapshot, a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from taskvault.mounted import MountedTree
from taskvault.protocol.messages import FindRuns, RemoveEntry, RemoveSnapshot
from tvfs.errors import TaskVaultError


class NotRemovable(TaskVaultError):
    """The path is a part of something that can only be removed as a whole, or is always there."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} {reason}; nothing was removed.")
        self.path = path


def removal_of(tree: MountedTree, path: Path) -> Callable[[], object]:
    """Return what removes the path, which lies under the mount, when it is called; raise `NotRemovable`.

    In `work/` that is a rename into the trash; a name in `keys/`, `snapshots/` and `runs/` shows an entry, which is
    forgotten.
    """
    place, *names = tree.relative(path).split("/")
    match place, names:
        case "work", [_, *_]:
            return lambda: tree.remove(path)
        case "keys", [scope, key]:
            # As tvd shows a scope: '/' and '%' are escaped.
            return lambda: tree.client.call(RemoveEntry(unquote(scope), key))
        case "snapshots", [name]:
            return lambda: tree.client.call(RemoveSnapshot(name))
        case "runs", [run]:
            return _removal_of_result(tree, path, run)
        case "keys", [scope]:
            raise NotRemovable(
                path, f"holds the keys of a scope; name keys with `tv cache rm --scope {unquote(scope)}`"
            )
        case "keys", [scope, key, *_]:
            raise NotRemovable(
                path, f"is part of what was saved; remove all of it with `tv rm {tree.mount}/keys/{scope}/{key}`"
            )
        case "snapshots", [name, *_]:
            raise NotRemovable(path, f"is part of a snapshot; remove all of it with `tv snapshot --rm {name}`")
        case "runs", [run, *_]:
            raise NotRemovable(path, f"is part of a result; remove all of it with `tv rm {tree.mount}/runs/{run}`")
        case "cas", [_, *_]:
            raise NotRemovable(path, "is content by its digest, and goes when nothing needs it")
    raise NotRemovable(path, "is always there; name something below it")


def _removal_of_result(tree: MountedTree, path: Path, run: str) -> Callable[[], object]:
    found = tree.client.call(FindRuns(run=run, limit=1, brief=True)).runs
    if not found or not found[0].key:
        raise NotRemovable(path, "shows a result whose run is not in the history")
    record = found[0]
    return lambda: tree.client.call(RemoveEntry(record.scope, record.key))
