from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.unit.ingest.bench import Bench, describe
from tvfs.ingest.materialise import materialise
from tvfs.ingest.one_file import write_one
from tvfs.ingest.snapshot_source import ContentDamaged

MOMENT_NS = 1_234_567_890_123_456_789


def _make(base: Path) -> None:
    noise = random.Random(1).randbytes(900_000)
    (base / "empty").touch()
    (base / "short").write_bytes(b"short")
    (base / "long").write_bytes(noise)
    with open(base / "holes", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(noise)
    with open(base / "hole", "wb") as file:
        file.truncate(1 << 20)
    (base / "program").write_bytes(b"#!")
    (base / "program").chmod(0o4755)
    (base / "noted").write_bytes(b"noted")
    os.setxattr(base / "noted", "user.note", b"kept")


@pytest.mark.parametrize("name", ["empty", "short", "long", "holes", "hole", "program", "noted"])
def test_a_file_is_the_same_as_one_that_is_written_with_others(bench: Bench, tmp_path: Path, name: str) -> None:
    base, ours, theirs = (tmp_path / each for each in ("base", "ours", "theirs"))
    for directory in (base, ours, theirs):
        directory.mkdir()
    _make(base)
    snapshot = bench.save(base)
    entry = bench.source.lookup(snapshot.index, os.fsencode(name))
    assert entry is not None
    assert write_one(bench.source, entry, str(ours / name), mtime_ns=MOMENT_NS)
    materialise(bench.source, snapshot, str(theirs / name), subpath=name)
    os.utime(theirs / name, ns=(MOMENT_NS, MOMENT_NS))
    assert describe(ours)[os.fsencode(name)] == describe(theirs)[os.fsencode(name)]
    assert os.listdir(ours) == [name]


def test_what_is_no_regular_file_is_not_written(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "link").symlink_to("nowhere")
    snapshot = bench.save(tmp_path / "base")
    entry = bench.source.lookup(snapshot.index, b"link")
    assert entry is not None
    assert not write_one(bench.source, entry, str(tmp_path / "made"), mtime_ns=MOMENT_NS)
    assert not os.path.lexists(tmp_path / "made")


def test_nothing_is_written_over_what_is_there(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "in").write_bytes(b"in")
    entry = bench.source.lookup(bench.save(tmp_path / "base").index, b"in")
    assert entry is not None
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / "made").symlink_to("victim")
    with pytest.raises(FileExistsError):
        write_one(bench.source, entry, str(tmp_path / "made"), mtime_ns=MOMENT_NS)
    assert (tmp_path / "victim").read_bytes() == b"untouched"


def test_bytes_that_are_not_those_of_the_file_are_an_error(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "in").write_bytes(b"in")
    entry = bench.source.lookup(bench.save(tmp_path / "base").index, b"in")
    assert entry is not None
    source = bench.source
    source._read_chunks = lambda chunk_ids: [b"no" for _ in chunk_ids]
    with pytest.raises(ContentDamaged):
        write_one(source, entry, str(tmp_path / "made"), mtime_ns=MOMENT_NS)
