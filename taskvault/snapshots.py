"""Paths into snapshots: by the owner where they lie under the mount, by this process everywhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from taskvault.client import Client
from taskvault.fitting import check_fits
from taskvault.ingest_port import ClientIngestPort
from taskvault.mounted import MountedTree, resolved
from taskvault.plugins import plugin_registry
from taskvault.protocol.messages import SnapshotLive, SnapshotRef, Welcome
from taskvault.snapshot_reference import reference
from tvfs.ingest.ingest import Ingest
from tvfs.ingest.port import IngestSettings
from tvfs.plugin_api import PluginRegistry

SEAL_TIMEOUT_S = 3600.0
"""Sealing a live tree hashes and stores whatever was written since the last time."""


def ingest_settings(welcome: Welcome, registry: PluginRegistry | None = None) -> IngestSettings:
    """Return how to cut, hash and compress for a vault; raise `PluginUnknown` or `PluginBroken`."""
    registry = registry or plugin_registry(welcome.plugin_call_timeout_s)
    return IngestSettings(
        hash_function=registry.hash_function(welcome.hash),
        chunker=registry.chunker(welcome.chunking, welcome.chunking_parameters),
        codec=registry.codec(welcome.compression, welcome.compression_parameters),
        pack_max_bytes=welcome.pack_max_bytes,
        threads=os.cpu_count() or 1,
    )


def take_snapshot(
    client: Client, base: Path, paths: Sequence[str], *, statuses: Iterable[os.stat_result] = ()
) -> SnapshotRef:
    """Store paths and return the snapshot: each where it lies below `base`, one outside under its last name.

    The content is leased to the client's connection until something refers to it.  Raises what the ingest and the owner
    raise: `PathMissing`, `PathUnreadable`, `FileChanged`, `PathsConflict`, `Refused` of kind `OpenForWriting` …
    `LargerThanVault`, before anything was evicted, where the files are named or their `statuses` are given.
    """
    tree = MountedTree.of(client)
    live = None if tree is None else live_request(tree, base, paths)
    if live is not None:
        return client.call(live, timeout_s=SEAL_TIMEOUT_S).snapshot
    from tvfs.ingest.tree_walk import save_paths

    settings = ingest_settings(client.welcome)
    check_fits(client, settings, base, paths, statuses or _named_files(base, paths))
    with Ingest(ClientIngestPort(client), settings) as ingest:
        return reference(save_paths(ingest, os.fsencode(base), [os.fsencode(path) for path in paths]))


def live_request(tree: MountedTree, base: Path, paths: Sequence[str]) -> SnapshotLive | None:
    """Return the request that lets the owner take the snapshot, or None if only this process can.

    Messages hold text only, so what has names that are not UTF-8 is read through the mount instead.
    """
    base = Path(os.path.realpath(base))
    places = [resolved(base / path) for path in paths]
    if not all(tree.holds(place) and place != tree.mount for place in places):
        return None
    if all(place.is_relative_to(base) for place in places) and tree.holds(base):
        wanted = [] if base in places else [str(place.relative_to(base)) for place in places]
    elif len(places) == 1:
        base, wanted = places[0].parent, [places[0].name]
    else:
        return None
    request = SnapshotLive(tree.relative(base), wanted)
    # The mount itself also holds views of what is stored.
    return request if request.path and all(map(_is_text, [request.path, *wanted])) else None


def _named_files(base: Path, paths: Sequence[str]) -> Iterator[os.stat_result]:
    for path in paths:
        with suppress(OSError):  # saving says it better
            yield os.lstat(base / path)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
