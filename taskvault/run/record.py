"""Store what a run made: outputs, what it wrote, and the result that its key will find."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from taskvault.client import Client
from taskvault.content_source import content_source
from taskvault.errors import Refused
from taskvault.ingest_port import ClientIngestPort
from taskvault.plugins import plugin_registry
from taskvault.protocol.messages import GetEntry, SaveEntry, SnapshotRef
from taskvault.run.as_text import text
from taskvault.run.execute import Captured, Executed
from taskvault.run.outputs import Output, OutputsUnusable
from taskvault.run.pathset import PathsetsUnusable, pack, unpack
from taskvault.run.plain_tree import PlainTree, PlainTreeBuilder, file_entry
from taskvault.run.result_format import (
    DELETED_TYPE,
    INLINE_BYTES,
    KEPT_TYPE,
    KEYS_TYPE,
    MODES_TYPE,
    MOST_TURNS,
    ORDER_TYPE,
    STAMPED_TYPE,
)
from taskvault.snapshot_reference import reference
from taskvault.snapshots import ingest_settings, take_snapshot
from tvfs.content import reapi
from tvfs.content.reference import Content
from tvfs.content.tree_builder import Subdirectory
from tvfs.content.tree_index import REGULAR, IndexEntry
from tvfs.digest import Digest
from tvfs.ingest.ingest import Ingest


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that may be stored."""

    scope: str
    key: Digest
    root: Path
    outputs: Sequence[Output]
    executed: Executed
    deleted: Sequence[str] = ()
    """What it removed, relative to the root."""
    modes: Mapping[str, int] = field(default_factory=dict)
    """Permissions of outputs that the umask does not explain."""
    kept: Sequence[str] = ()
    """Outputs that have the attributes of the file that was there, if one was."""
    stamped: Sequence[str] = ()
    """Outputs in which a tool wrote down when it made the others."""
    observed: str = "declared"
    weak_key: str = ""
    """Of a traced run, in hexadecimal."""
    pathset: bytes = b""
    """What it looked at, encoded."""
    also: Sequence[tuple[Digest, bytes]] = ()
    """Other keys that find the same result, each with its pathset."""

    @property
    def keys(self) -> list[Digest]:
        """All that find the result, the run's own first."""
        return [self.key, *(key for key, _ in self.also)]


def store(client: Client, finished: Finished, *, replace: bool, despite_mark: bool = False) -> None:
    """Make the run's result durable under its key; raise what the ingest and the owner raise.

    If the same run was stored by somebody else meanwhile, theirs stays, unless `replace`.  If the key is marked as one
    that does not reproduce, nothing is stored, unless `despite_mark`, which takes the mark away.
    """
    captured = finished.executed.captured
    assert captured is not None, "only a run whose output was kept is stored"
    snapshot, result, nothing = _commit(client, finished, captured)
    for key in finished.keys:
        entry = SaveEntry(
            scope=finished.scope,
            key=key.hex,
            kind="run",
            snapshot=snapshot,
            replace=replace,
            result=result,
            cost_ns=finished.executed.duration_ns,
            observed=finished.observed,
            despite_mark=despite_mark,
        )
        try:
            client.call(entry)
        except Refused as exc:
            if exc.kind != "KeyExists":
                raise
    if finished.pathset:
        _add_pathsets(client, finished, nothing)


def _add_pathsets(client: Client, finished: Finished, nothing: SnapshotRef) -> None:
    """Put the pathsets before the others of their weak key; two at once may lose one, which is a miss later."""
    found = client.call(GetEntry(finished.scope, finished.weak_key)).entry
    try:
        known = unpack(found.result) if found is not None else []
    except PathsetsUnusable:
        known = []
    new = [*(pathset for _, pathset in finished.also), finished.pathset]
    row = pack([*new, *(other for other in known if other not in new)])
    client.call(
        SaveEntry(
            scope=finished.scope,
            key=finished.weak_key,
            kind="paths",
            snapshot=nothing,
            replace=True,
            result=row,
            cost_ns=finished.executed.duration_ns,
            observed=finished.observed,
        )
    )


def _commit(client: Client, finished: Finished, captured: Captured) -> tuple[SnapshotRef, bytes, SnapshotRef]:
    """Store all content; return the snapshot and the result of the run, and the snapshot of nothing."""
    paths = [output.path for output in finished.outputs]
    live = take_snapshot(client, finished.root, paths) if paths else None
    settings = ingest_settings(client.welcome)
    with content_source(client) as source, Ingest(ClientIngestPort(client), settings) as ingest:
        builder = PlainTreeBuilder(source, ingest)
        streams = [_add_stream(ingest, captured.stdout), _add_stream(ingest, captured.stderr)]
        made = (
            builder.rebuild(live.index, [os.fsencode(path) for path in paths])
            if live
            else PlainTree(builder.build([], []), {})
        )
        gone = {os.fsencode(path) for path in paths} - made.entries.keys()
        if gone:
            raise OutputsUnusable(f"{os.fsdecode(min(gone))} went while it was stored")
        files = [file_entry(b"stdout", streams[0]), file_entry(b"stderr", streams[1])]
        root = builder.build(files, [(b"outputs", made.root)])
        nothing = builder.build([], [])
        ingest.finish()
        digests = [ingest.digest(content) for content in streams]
    result = _action_result(made, digests, captured, finished)
    return reference(root.snapshot), result, reference(nothing.snapshot)


def _add_stream(ingest: Ingest, stream: IO[bytes]) -> Content:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return ingest.add_stream(stream.read, size)


def _action_result(made: PlainTree, streams: Sequence[Digest], captured: Captured, finished: Finished) -> bytes:
    result = reapi.ActionResult(exit_code=0, stdout_digest=_digest(streams[0]), stderr_digest=_digest(streams[1]))
    result.stdout_raw = _whole_if_short(captured.stdout, streams[0].size)
    result.stderr_raw = _whole_if_short(captured.stderr, streams[1].size)
    function = streams[0].function
    for path, found in sorted(made.entries.items()):
        name = text(os.fsdecode(path))
        if isinstance(found, Subdirectory):
            digest = _digest(found.snapshot.tree)
            result.output_directories.add(path=name, root_directory_digest=digest)
        elif found.kind == REGULAR:
            result.output_files.add(
                path=name, digest=_file_digest(found, function), is_executable=bool(found.mode & 0o111)
            )
        else:
            result.output_symlinks.add(path=name, target=text(os.fsdecode(found.target)))
    if all(stream.size for stream in streams) and len(captured.order) <= MOST_TURNS:
        _add_metadata(result, ORDER_TYPE, captured.order)
    if finished.deleted:
        _add_metadata(result, DELETED_TYPE, [text(path) for path in finished.deleted])
    if finished.modes:
        _add_metadata(result, MODES_TYPE, {text(path): mode for path, mode in finished.modes.items()})
    if finished.kept:
        _add_metadata(result, KEPT_TYPE, [text(path) for path in finished.kept])
    if finished.stamped:
        _add_metadata(result, STAMPED_TYPE, [text(path) for path in finished.stamped])
    if finished.also:
        _add_metadata(result, KEYS_TYPE, [key.hex for key in finished.keys])
    return reapi.serialise(result)


def _add_metadata(result: reapi.ReapiMessage, type_url: str, value: object) -> None:
    metadata = result.execution_metadata.auxiliary_metadata.add()
    metadata.type_url, metadata.value = type_url, msgspec.msgpack.encode(value)


def _whole_if_short(stream: IO[bytes], size: int) -> bytes:
    if size > INLINE_BYTES:
        return b""
    stream.seek(0)
    return stream.read(size)


def _digest(digest: Digest) -> reapi.ReapiMessage:
    return reapi.Digest(hash=digest.hex, size_bytes=digest.size)


def _file_digest(entry: IndexEntry, function: str) -> reapi.ReapiMessage:
    if entry.size:
        return reapi.Digest(hash=entry.content_hash.hex(), size_bytes=entry.size)
    return reapi.Digest(hash=empty_hash(function).hex(), size_bytes=0)


def empty_hash(function: str) -> bytes:
    """Return the hash of no bytes: an index row has no hash for an empty file, a result must."""
    return plugin_registry().hash_function(function).digest(b"")
