"""REAPI trees that somebody else made: attached by their digest, through the daemon and its mount."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from taskvault.client import Client
from taskvault.errors import Refused
from taskvault.ingest_port import ClientIngestPort
from taskvault.mounted import MountedTree
from taskvault.protocol import messages as m
from taskvault.snapshots import ingest_settings
from tests.unit.content.foreign import message
from tvfs.digest import Digest
from tvfs.ingest.ingest import Ingest

pytestmark = pytest.mark.kernel


def digest_of(content: bytes) -> Digest:
    return Digest("blake3", blake3(content).digest(), len(content))


EMPTY = digest_of(b"")


class Uploads:
    """What a gateway does: contents go into the vault under their digests, and nothing is said of trees."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._ingest = Ingest(ClientIngestPort(client), ingest_settings(client.welcome))

    def add(self, content: bytes) -> Digest:
        self._ingest.add_bytes(content)
        return digest_of(content)

    def directory(self, *parts: Any) -> Digest:
        return self.add(message(*parts))

    def finish(self) -> None:
        self._ingest.finish()
        self._ingest.close()

    def attach(self, tree: Digest, path: Path) -> m.SnapshotRef:
        found = self.client.call(m.FindSnapshot(str(tree)), timeout_s=300).snapshot
        MountedTree.of(self.client).attach(found, path)
        return found


@contextmanager
def uploads(daemon: Any) -> Iterator[Uploads]:
    with daemon.client() as client:
        yield Uploads(client)


def test_a_foreign_tree_is_attached_by_its_digest(daemon: Any) -> None:
    daemon.start(mounted=True)
    work = daemon.mount / "work"
    with uploads(daemon) as up:
        long = os.urandom(3_000_000)
        deep = up.directory({"long": up.add(long), "run.sh": up.add(b"#!/bin/sh\n")}, {}, {"away": "/etc/passwd"})
        tree = up.directory({"a": up.add(b"a"), "none": EMPTY}, {"deep": deep, "void": EMPTY})
        up.finish()
        found = up.attach(tree, work / "out")
        assert (found.tree, found.attributes, found.files) == (str(tree), None, 4)
        assert (work / "out/deep/long").read_bytes() == long
        assert os.readlink(work / "out/deep/away") == "/etc/passwd"
        assert stat.S_IMODE((work / "out/deep/run.sh").stat().st_mode) == 0o755
        assert sorted(os.listdir(work / "out")) == ["a", "deep", "none", "void"]
        assert os.listdir(work / "out/void") == []
        up.attach(tree, work / "again")
        assert up.client.call(m.SnapshotLive("work/out")).snapshot.tree == str(tree), "unchanged, it is the same tree"
        (work / "again/a").write_text("changed")
        again = up.client.call(m.SnapshotLive("work/again")).snapshot
        changed = message({"a": digest_of(b"changed"), "none": EMPTY}, {"deep": deep, "void": EMPTY})
        assert again.tree == str(digest_of(changed))
    assert daemon.stop() == 0
    daemon.start(mounted=True)
    assert (work / "out/deep/long").read_bytes() == long


def test_what_cannot_be_taken_is_refused_in_a_sentence_and_the_daemon_lives_on(daemon: Any) -> None:
    daemon.start(mounted=True)
    with uploads(daemon) as up:
        one = up.add(b"one")
        wrong = {
            "TreeRefused": [
                up.directory({}, {"d": up.directory({"..": one})}),
                up.directory({"a": Digest("blake3", one.hash, 1 << 50)}),
                up.add(b"no directory"),
            ],
            "TreeIncomplete": [up.directory({"gone": digest_of(b"gone")})],
            "SnapshotMissing": [digest_of(b"gone"), Digest("sha256", hashlib.sha256(b"").digest(), 0)],
        }
        up.finish()
        for kind, trees in wrong.items():
            for tree in trees:
                with pytest.raises(Refused) as refused:
                    up.client.call(m.FindSnapshot(str(tree)))
                assert refused.value.kind == kind
                assert str(refused.value).count(". ") == 0, "one sentence"
        assert up.client.call(m.GetStatus()).healthy
    assert daemon.stop() == 0
    assert [line["event"] for line in daemon.log() if line["level"] == "error"] == []


LEVELS = 1000


def walk_down(start: Path) -> list[int]:
    """Descriptors-free steps down a path that is too long to be named: returns the inode numbers on the way."""
    numbers = []
    here = os.open(start, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            names = os.listdir(here)
            numbers.append(os.fstat(here).st_ino)
            if "d" not in names:
                assert names == ["bottom"]
                return numbers
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)


def test_a_thousand_levels_are_attached_listed_changed_kept_measured_and_removed(daemon: Any) -> None:
    daemon.start(mounted=True)
    work = daemon.mount / "work"
    with uploads(daemon) as up:
        tree = up.directory({"bottom": up.add(b"bottom")})
        for _ in range(LEVELS - 1):
            tree = up.directory({}, {"d": tree})
        too_deep = up.directory({}, {"d": tree})
        up.finish()
        with pytest.raises(Refused, match="more than 1000 levels"):
            up.client.call(m.FindSnapshot(str(too_deep)))
        up.attach(tree, work / "out")
        numbers = walk_down(work / "out")
        assert len(numbers) == LEVELS
        assert numbers == list(range(numbers[0], numbers[0] + LEVELS))
        change_the_bottom(work / "out")
        changed = up.client.call(m.SnapshotLive("work/out"), timeout_s=60).snapshot
        assert changed.tree != str(tree)
        assert (changed.files, changed.size) == (1, 7)
        measured = up.client.call(m.MeasurePath("work/out"), timeout_s=60)
        assert (measured.files, measured.directories, measured.logical_bytes) == (1, LEVELS, 7)
        assert up.client.call(m.SnapshotLive("work/out"), timeout_s=60).snapshot == changed
        MountedTree.of(up.client).attach(changed, work / "again")
        assert len(walk_down(work / "again")) == LEVELS
        for name in ("out", "again"):
            MountedTree.of(up.client).remove(work / name)
        assert os.listdir(work) == []
        up.attach(tree, work / "third")
    daemon.kill()
    assert daemon.start(mounted=True)["ok"]
    assert len(walk_down(work / "third")) == LEVELS, "found anew after a start, by descending from its top"
    assert daemon.stop() == 0
    assert [line["event"] for line in daemon.log() if line["level"] == "error"] == []


def change_the_bottom(start: Path) -> None:
    here = os.open(start, os.O_RDONLY | os.O_DIRECTORY)
    while "d" in os.listdir(here):
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("bottom", os.O_WRONLY | os.O_TRUNC, dir_fd=here)
    os.write(file, b"changed")
    os.close(file)
    os.close(here)


class Prober:
    """Asks the daemon the same small thing again and again, and remembers how long it waited."""

    def __init__(self, daemon: Any) -> None:
        self._client = daemon.client()
        self._stop = threading.Event()
        self.waits_s: list[float] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            started = time.perf_counter()
            self._client.call(m.GetEntry("main", "nothing"))
            self.waits_s.append(time.perf_counter() - started)


def wide(daemon: Any, count: int) -> None:
    daemon.start(mounted=True)
    work = daemon.mount / "work"
    with uploads(daemon) as up:
        one = up.add(b"one")
        tree = up.directory({f"entry-{number:07}": one for number in range(count)})
        up.finish()
        before = memory_mib(daemon)
        started = time.perf_counter()
        with Prober(daemon) as prober:
            found = up.client.call(m.FindSnapshot(str(tree)), timeout_s=600).snapshot
        waits = sorted(prober.waits_s)
        took_s = time.perf_counter() - started
        grown = memory_mib(daemon) - before
        print(f"{count} entries: {took_s:.1f} s, {grown} MiB; others waited {waits[len(waits) // 2] * 1e3:.1f} ms,"
              f" p99 {waits[-max(1, len(waits) // 100)] * 1e3:.1f} ms, at most {waits[-1] * 1e3:.1f} ms")  # fmt: skip
        assert grown < 250, "RocksDB's memtables and the message's file, which is mapped, are in it"
        assert waits[len(waits) // 2] < 0.05, "others are served meanwhile"
        started = time.perf_counter()
        MountedTree.of(up.client).attach(found, work / "out")
        assert time.perf_counter() - started < 1, "whatever its size"
        assert (work / "out" / f"entry-{count - 1:07}").read_bytes() == b"one"
        assert not (work / "out/entry").exists()
        with os.scandir(work / "out") as listed:
            assert sum(1 for _ in listed) == count
        (work / "out" / "entry-0000007").unlink()
        with os.scandir(work / "out") as listed:
            assert sum(1 for _ in listed) == count - 1
        measured = up.client.call(m.MeasurePath("work/out"), timeout_s=300)
        assert (measured.files, measured.logical_bytes) == (count - 1, 3 * (count - 1))
        MountedTree.of(up.client).remove(work / "out")
    assert daemon.stop() == 0


def memory_mib(daemon: Any) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def test_fifty_thousand_entries_in_one_directory_work(daemon: Any) -> None:
    wide(daemon, 50_000)


@pytest.mark.slow
def test_a_million_entries_in_one_directory_work(daemon: Any) -> None:
    wide(daemon, 1_000_000)
