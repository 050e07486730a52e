"""Make a view of a root as it was before a run: then what is there leads to the key of that run again."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from taskvault.client import Client
from taskvault.protocol.messages import Entry, GetEntry
from taskvault.run.coarse_clock import coarse_now_ns
from taskvault.run.digests import Digests
from taskvault.run.inputs import InputsUnusable
from taskvault.run.pathset import Pathset, PathsetsUnusable, decode, strong_key, unpack
from taskvault.run.replay import read_result
from taskvault.run.traced_preparation import Prepared
from tvfs.errors import TaskVaultError

CHANGED = "what it looks at has changed"
OWN_VIEW = "it looks at what the kernel says of itself or of mounts"

_OWN_VIEW = re.compile(rb"/proc/(?:self|thread-self|mounts|\d+)(?:/|\Z)|/etc/mtab\Z")
"""What the kernel says there differs with where it is asked, as mounts do."""
_TICK_S = 0.001


class NotRepeatable(TaskVaultError):
    """A run is left out."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The run cannot be repeated: {reason}.")
        self.reason = reason


def leads_to(client: Client, prepared: Prepared, stored: Entry) -> bool:
    """Whether what is on disk now leads to a stored result; raise `NotRepeatable` if it cannot be so apart."""
    pathset = _found(client, prepared, stored)
    if pathset is not None and any(_OWN_VIEW.match(item.path) for item in pathset.items):
        raise NotRepeatable(OWN_VIEW)
    return pathset is not None


def make_ready(client: Client, prepared: Prepared, stored: Entry) -> None:
    """Remove what a run has made from a view of its root, as before a build that begins with nothing.

    Raise `NotRepeatable` if that does not lead to its result either.
    """
    _remove_outputs(client, prepared.root, stored)
    if not leads_to(client, prepared, stored):
        raise NotRepeatable(CHANGED)


def _found(client: Client, prepared: Prepared, stored: Entry) -> Pathset | None:
    """Return the pathset whose states now make the key of a result."""
    row = client.call(GetEntry(stored.scope, prepared.weak_hash.hex())).entry
    sight = prepared.sight(Digests(prepared.hash_function))
    try:
        for encoded in unpack(row.result) if row is not None and row.kind == "paths" else ():
            pathset = decode(encoded)
            try:
                states = sight.states(pathset)
            except (OSError, InputsUnusable):
                continue
            for bound in prepared.whereabouts.bindings():
                key = strong_key(prepared.weak_hash, encoded, [*states, *bound], prepared.hash_function)
                if key.hex() == stored.key:
                    return pathset
    except PathsetsUnusable:
        return None
    return None


def _remove_outputs(client: Client, root: Path, stored: Entry) -> None:
    for output in read_result(stored, client.welcome.hash).outputs:
        path = root / output.path
        # Apart only the root is a view: never through a link that leads out of it.
        if not Path(os.path.realpath(path.parent)).is_relative_to(root):
            raise NotRepeatable(CHANGED)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    removed_ns = coarse_now_ns()
    while coarse_now_ns() <= removed_ns:
        time.sleep(_TICK_S)
