"""Whether a run made the same as is stored: for `tv run --check`."""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from taskvault.client import Client
from taskvault.content_source import content_source
from taskvault.protocol.messages import Entry
from taskvault.run.divergence import Divergence, compare_content
from taskvault.run.execute import Executed
from taskvault.run.outputs import Output
from taskvault.run.replay import StoredResult, fetched, read_result
from taskvault.snapshot_reference import dereference
from tvfs.ingest.materialise import materialise

MOST_SAID = 5
DIFFERS = "not what is stored: "
_REPORT = re.compile(rb"(?m)^tv: .*\n?")
_KINDS = {stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link"}


def difference(
    client: Client,
    entry: Entry,
    root: Path,
    outputs: Sequence[Output],
    executed: Executed,
    deleted: Sequence[str] = (),
) -> str | None:
    """Return what differs between a stored result and what a command has just made, or None.

    Compared byte by byte, beside the root's own outputs in a directory for temporary files.
    """
    stored = read_result(entry, client.welcome.hash)
    found = list(_divergences(client, stored, root, outputs, executed))
    found += [Divergence(path, "was removed" if path in deleted else "was not removed")
              for path in sorted({*deleted} ^ {*stored.deleted})]  # fmt: skip
    if not found:
        return None
    more = f"; and {len(found) - MOST_SAID} more" if len(found) > MOST_SAID else ""
    return f"{DIFFERS}{'; '.join(map(str, found[:MOST_SAID]))}{more}"


def _divergences(
    client: Client, stored: StoredResult, root: Path, outputs: Sequence[Output], executed: Executed
) -> Iterator[Divergence]:
    captured, now_s = executed.captured, time.time()
    assert captured is not None, "a run that is checked is captured"
    for name, before, now in zip(("stdout", "stderr"), stored.streams, (captured.stdout, captured.stderr), strict=True):
        parts = [io.BytesIO(fetched(lambda: content_source(client), before)), now]
        if name == "stderr":
            parts = [_without_reports(part) for part in parts]
        found = compare_content(name, *parts, now_s=now_s)
        if found is not None:
            yield found
    with tempfile.TemporaryDirectory(prefix="taskvault-check-") as directory:
        place = Path(directory, "stored")
        if stored.outputs:
            with content_source(client) as source:
                materialise(source, dereference(stored.snapshot), os.fsencode(place), subpath=b"outputs")
        paths = sorted({output.path for output in stored.outputs} | {output.path for output in outputs})
        for path in paths:
            yield from _compare(place / path, root / path, path, now_s)


def _without_reports(stream: IO[bytes]) -> IO[bytes]:
    """Return what was written without the reports of runs inside, which say how long those took."""
    stream.seek(0)
    return io.BytesIO(_REPORT.sub(b"", stream.read()))


def _compare(stored: Path, made: Path, name: str, now_s: float) -> Iterator[Divergence]:
    """Yield how what was made at a path differs, everything below it included."""
    before, now = _status(stored), _status(made)
    if before is None or now is None:
        if before is not now:
            yield Divergence(name, "is not there" if now is None else "is there and should not be")
        return
    kinds = stat.S_IFMT(before.st_mode), stat.S_IFMT(now.st_mode)
    if kinds[0] != kinds[1]:
        yield Divergence(name, f"is {_KINDS.get(kinds[1], 'special')} and should be {_KINDS.get(kinds[0], 'special')}")
    elif stat.S_ISDIR(kinds[0]):
        for child in sorted({*os.listdir(stored), *os.listdir(made)}):
            yield from _compare(stored / child, made / child, f"{name}/{child}", now_s)
    elif stat.S_ISLNK(kinds[0]):
        if os.readlink(stored) != os.readlink(made):
            yield Divergence(name, f"leads to {os.readlink(made)!r} and should to {os.readlink(stored)!r}")
    else:
        if (before.st_mode ^ now.st_mode) & 0o111 and not (before.st_mode & 0o111 and now.st_mode & 0o111):
            yield Divergence(name, "is executable" if now.st_mode & 0o111 else "is not executable")
        with stored.open("rb") as one, made.open("rb") as other:
            found = compare_content(name, one, other, now_s=now_s)
        if found is not None:
            yield found


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
