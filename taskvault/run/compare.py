"""Whether a run made the same as is stored: for `tv run --check`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from taskvault.client import Client
from taskvault.protocol.messages import Entry
from taskvault.run.as_text import text
from taskvault.run.execute import Captured, Executed
from taskvault.run.input_tree import digest_file
from taskvault.run.outputs import Output
from taskvault.run.replay import ResultUnusable
from taskvault.snapshots import ingest_settings
from tvfs.content import reapi
from tvfs.ingest.port import IngestSettings
from tvfs.ingest.tree_walk import hash_paths


def difference(
    client: Client,
    entry: Entry,
    root: Path,
    outputs: Sequence[Output],
    executed: Executed,
) -> str | None:
    """Return what differs between a stored result and what a command has just made, or None."""
    assert executed.captured is not None
    stored = reapi.ActionResult()
    try:
        stored.ParseFromString(entry.result)
    except ValueError as exc:
        raise ResultUnusable(str(exc)) from exc
    expected = dict(_stored(stored))
    made = dict(_made(root, outputs, executed.captured, ingest_settings(client.welcome)))
    differing = sorted(name for name in expected.keys() | made.keys() if expected.get(name) != made.get(name))
    return (
        f"{', '.join(differing[:5])}{' …' if len(differing) > 5 else ''} differ from what is stored"
        if differing
        else None
    )


def _stored(result: reapi.ReapiMessage) -> Iterator[tuple[str, object]]:
    yield "stdout", result.stdout_digest.hash
    yield "stderr", result.stderr_digest.hash
    for directory in result.output_directories:
        yield directory.path, directory.root_directory_digest.hash
    for file in result.output_files:
        yield file.path, (file.digest.hash, file.is_executable)
    for link in result.output_symlinks:
        yield link.path, link.target


def _made(
    root: Path, outputs: Sequence[Output], captured: Captured, settings: IngestSettings
) -> Iterator[tuple[str, object]]:
    for name, stream in (("stdout", captured.stdout), ("stderr", captured.stderr)):
        hasher = settings.hash_function.hasher()
        stream.seek(0)
        while part := stream.read(1 << 20):
            hasher.update(part)
        yield name, hasher.digest().hex()
    for output in outputs:
        yield text(output.path), _content(root, output, settings)


def _content(root: Path, output: Output, settings: IngestSettings) -> object:
    place = root / output.path
    if output.is_directory:
        return hash_paths(settings, os.fsencode(place), [b"."]).hex
    if place.is_symlink():
        return text(os.readlink(place))
    return digest_file(place, settings.hash_function).hex, bool(os.stat(place).st_mode & 0o111)
