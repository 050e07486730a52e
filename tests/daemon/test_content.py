"""What clients store, find and read, and what is left when one of the two sides dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskvault.client import Client
from taskvault.content_source import content_source
from taskvault.errors import DaemonUnreachable, Refused
from taskvault.ingest_port import ClientIngestPort
from taskvault.protocol import messages as m
from taskvault.snapshot_reference import dereference
from taskvault.snapshots import ingest_settings
from tvfs.digest import ChunkId
from tvfs.ingest.commit import ChunkRecord, IngestCommit
from tvfs.ingest.ingest import Ingest
from tvfs.ingest.materialise import materialise
from tvfs.ingest.snapshot_source import ContentDamaged
from tvfs.ingest.tree_walk import save_paths
from tvfs.plugin_api import PluginRegistry

ROOT = Path(__file__).parent.parent.parent
EXITED_3 = b"\x20\x03"
"""A serialised `ActionResult`."""


def save(client: Client, tree: Path) -> m.SnapshotRef:
    with Ingest(ClientIngestPort(client), ingest_settings(client.welcome)) as ingest:
        snapshot = save_paths(ingest, os.fsencode(tree), [os.fsencode(name) for name in sorted(os.listdir(tree))])
    attributes = None if snapshot.attributes is None else str(snapshot.attributes)
    return m.SnapshotRef(str(snapshot.tree), attributes, snapshot.index, snapshot.files, snapshot.size)


def read_back(client: Client, snapshot: m.SnapshotRef, target: Path) -> Path:
    with content_source(client) as source:
        materialise(source, dereference(snapshot), os.fsencode(target))
    return target


def assert_same(one: Path, other: Path) -> None:
    subprocess.run(["diff", "-r", "--no-dereference", str(one), str(other)], check=True)
    assert [(p.name, p.lstat().st_mode, p.lstat().st_mtime_ns) for p in sorted(one.rglob("*"))] == [
        (p.name, p.lstat().st_mode, p.lstat().st_mtime_ns) for p in sorted(other.rglob("*"))
    ]


def packs_of(daemon: Any) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (daemon.home / "packs").iterdir()}


def test_a_tree_is_saved_found_and_read_back_and_outlives_kill_9(daemon: Any, tree: Path, tmp_path: Path) -> None:
    daemon.start()
    with daemon.client() as client:
        snapshot = save(client, tree)
        saved = client.call(m.SaveEntry("main", "key", "saved", snapshot)).entry
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        found = client.call(m.GetEntry("main", "key")).entry
        assert found == saved
        assert found.snapshot == snapshot
        assert_same(tree, read_back(client, snapshot, tmp_path / "copy"))
        # Nothing of it is sent a second time.
        before = packs_of(daemon)
        assert save(client, tree) == snapshot
        assert packs_of(daemon) == before
        assert client.call(m.GetStatistics()).figures["logical_files"] == 4
    assert daemon.stop() == 0


def test_entries_are_kept_replaced_listed_and_removed(daemon: Any, tree: Path, tmp_path: Path) -> None:
    daemon.start()
    with daemon.client() as client:
        first = save(client, tree)
        (tree / "small").write_text("other\n")
        second = save(client, tree)
        client.call(m.SaveEntry("main", "a", "saved", first))
        with pytest.raises(Refused, match="--replace") as refused:
            client.call(m.SaveEntry("main", "a", "saved", second))
        assert refused.value.kind == "KeyExists"
        assert client.call(m.GetEntry("main", "a")).entry.snapshot == first
        client.call(m.SaveEntry("main", "a", "saved", second, replace=True))
        assert client.call(m.GetEntry("main", "a", count_use=True)).entry.snapshot == second
        assert client.call(m.GetEntry("main", "a")).entry.uses == 1
        client.call(m.SaveEntry("pr/1", "a", "saved", first))
        client.call(m.SaveEntry("main", "b", "run", first, result=EXITED_3, cost_ns=5))
        client.call(m.NameSnapshot("release", second))

        everything = client.call(m.ListEntries()).entries
        assert [(entry.scope, entry.key, entry.kind) for entry in everything] == [
            ("main", "a", "saved"), ("main", "b", "run"), ("pr/1", "a", "saved"),
        ]  # fmt: skip
        assert (everything[1].result, everything[1].cost_ns) == (EXITED_3, 5)
        pages = [client.call(m.ListEntries(after=after, limit=1)).entries for after in (None, ("main", "a"))]
        assert [page[0].key for page in pages] == ["a", "b"]
        assert [entry.key for entry in client.call(m.ListEntries(scope="pr/1")).entries] == ["a"]

        client.call(m.RemoveEntry("main", "a"))
        assert client.call(m.GetEntry("main", "a")).entry is None
        with pytest.raises(Refused) as refused:
            client.call(m.RemoveEntry("main", "a"))
        assert refused.value.kind == "KeyMissing"

        assert client.call(m.FindSnapshot("release")).snapshot == second
        assert client.call(m.FindSnapshot(first.tree)).snapshot == first
        for unknown in ("releases", "", "a/b", "blake3:" + "00" * 32 + "-3"):
            with pytest.raises(Refused) as refused:
                client.call(m.FindSnapshot(unknown))
            assert refused.value.kind == "SnapshotMissing"
        with pytest.raises(Refused) as refused:
            client.call(m.NameSnapshot("release", first))
        assert refused.value.kind == "NameExists"


@pytest.mark.parametrize(
    ("scope", "key", "kind"),
    [
        ("main", "", "NameInvalid"),
        ("main", "a/b", "NameInvalid"),
        ("main", "..", "NameInvalid"),
        ("main", "k" * 256, "NameInvalid"),
        ("main", "\x00", "NameInvalid"),
        ("", "k", "NameInvalid"),
        ("a/../b", "k", "NameInvalid"),
        ("/" * 3, "k", "NameInvalid"),
        ("a/" * 100 + "a", "k", "NameInvalid"),
        (".snapshots", "k", "NameInvalid"),
    ],
)
def test_names_that_cannot_be_shown_are_refused_and_nothing_is_changed(
    shared_daemon: Any, shared_snapshot: m.SnapshotRef, scope: str, key: str, kind: str
) -> None:
    with shared_daemon.client() as client:
        before = client.call(m.ListEntries()).entries
        for request in (
            m.SaveEntry(scope, key, "saved", shared_snapshot),
            m.GetEntry(scope, key),
            m.RemoveEntry(scope, key),
        ):
            with pytest.raises(Refused) as refused:
                client.call(request)
            assert refused.value.kind == kind
        assert client.call(m.ListEntries()).entries == before


@pytest.mark.parametrize("key", ["k", "k" * 255, "ключ", "%2F", "-", " ", "a:b"])
def test_names_that_can_be_shown_are_taken(shared_daemon: Any, shared_snapshot: m.SnapshotRef, key: str) -> None:
    with shared_daemon.client() as client:
        client.call(m.SaveEntry("odd/names", key, "saved", shared_snapshot))
        assert client.call(m.GetEntry("odd/names", key)).entry.key == key
        client.call(m.RemoveEntry("odd/names", key))


WRONG_SNAPSHOTS = {
    "never committed": ({"index": bytes(32)}, "SnapshotMissing"),
    "another size": ({"size": 1}, "SnapshotMissing"),
    "another tree": ({"tree": "blake3:" + "00" * 32 + "-9"}, "SnapshotMissing"),
    "no digest": ({"tree": "blake3"}, "DigestInvalid"),
}


@pytest.mark.parametrize(("change", "kind"), WRONG_SNAPSHOTS.values(), ids=WRONG_SNAPSHOTS.keys())
def test_an_entry_for_content_that_is_not_there_is_refused(
    shared_daemon: Any, shared_snapshot: m.SnapshotRef, change: dict[str, Any], kind: str
) -> None:
    fields = {name: getattr(shared_snapshot, name) for name in shared_snapshot.__struct_fields__}
    wrong = m.SnapshotRef(**{**fields, **change})
    with shared_daemon.client() as client:
        for request in (m.SaveEntry("main", "wrong", "saved", wrong), m.NameSnapshot("wrong", wrong)):
            with pytest.raises(Refused) as refused:
                client.call(request)
            assert refused.value.kind == kind
        assert client.call(m.GetEntry("main", "wrong")).entry is None


IMPOSSIBLE = {
    "a pack of nothing": m.OpenPack(0),
    "a pack longer than packs can be": m.OpenPack(1 << 40),
    "a chunk id that is none": m.FindMissing([b"short"]),
    "to locate a chunk id that is none": m.Locate([b""]),
    "a family that is not for clients": m.GetRows([("inode", bytes(8))]),
    "a family that does not exist": m.GetRows([("secrets", b"")]),
    "a kind of entry that does not exist": m.SaveEntry("main", "k", "x", m.SnapshotRef("a", None, b"", 0, 0)),
    "more entries than fit": m.ListEntries(limit=100_000),
    "a negative number of entries": m.ListEntries(limit=-1),
}


@pytest.mark.parametrize("request_", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_no_client_should_ask_is_refused(shared_daemon: Any, request_: Any) -> None:
    with shared_daemon.client() as client:
        with pytest.raises(Refused) as refused:
            client.call(request_)
        assert refused.value.kind == "Rejected"
        client.call(m.GetStatus())


def test_without_a_mount_there_is_nothing_to_publish_to(shared_daemon: Any, shared_snapshot: m.SnapshotRef) -> None:
    with shared_daemon.client() as client:
        for request in (m.PrepareAttach(shared_snapshot), m.PrepareTrash()):
            with pytest.raises(Refused) as refused:
                client.call(request)
            assert refused.value.kind == "NotMounted"
        with pytest.raises(Refused) as refused:
            client.call(m.Discard(".taskvault/" + "0" * 32))
        assert refused.value.kind == "PreparedUnknown"


def test_runs_are_remembered_latest_first(shared_daemon: Any, shared_snapshot: m.SnapshotRef) -> None:
    with shared_daemon.client() as client:
        kept = [
            client.call(
                m.RecordRun(m.RunRecord("", n, 2, ["make", str(n % 2)], "/src", ".", "main", "", "failed", "", 1))
            )
            for n in range(6)
        ]
        runs = [reply.record.run for reply in kept]
        assert [run.run for run in client.call(m.FindRuns(limit=3)).runs] == runs[:2:-1]
        assert [run.run for run in client.call(m.FindRuns(command=["make", "1"], limit=2)).runs] == [runs[5], runs[3]]
        assert client.call(m.FindRuns(run=runs[2])).runs == [kept[2].record]
        assert client.call(m.FindRuns(root="/elsewhere")).runs == []
        told = client.call(
            m.RecordRun(m.RunRecord("", 9, 2, ["make"], "/", ".", "main", "", "hit", "", 0, inputs={"a": "b"}))
        )
        assert client.call(m.FindRuns(run=told.record.run)).runs == [told.record]
        assert client.call(m.FindRuns(run=told.record.run, brief=True)).runs[0].inputs == {}
        for unknown in ("0", "999999", "x", "-1", "9" * 30):
            assert client.call(m.FindRuns(run=unknown)).runs == []


CLIENT_THAT_DIES = """
import os, signal, sys
from pathlib import Path
from taskvault.client import Client
from taskvault.ingest_port import ClientIngestPort
from taskvault.protocol import messages as m
from tvfs.digest import ChunkId

client = Client.connect(Path(sys.argv[1]), timeout_s=10)
port = ClientIngestPort(client)
assert port.find_missing([ChunkId(bytes.fromhex(sys.argv[2])), ChunkId(b"y" * 32)]) == {b"y" * 32}
writer = port.open_pack()
for number in range(100):
    writer.append(ChunkId(number.to_bytes(32, "big")), 100_000, 0, os.urandom(100_000))
writer.sync()
print(writer.number, flush=True)
sys.stdin.read()
"""


def test_a_client_killed_in_the_middle_of_a_save_leaves_nothing_behind(daemon: Any, tree: Path) -> None:
    daemon.start()
    with daemon.client() as client:
        snapshot = save(client, tree)
        small = PluginRegistry().hash_function("blake3").digest(b"small\n")
    with daemon.client() as client:
        before, packs = client.call(m.GetStatistics()).figures, packs_of(daemon)
        assert before["leased_chunks"] == before["reserved_bytes"] == 0
        victim = subprocess.Popen(
            [sys.executable, "-c", CLIENT_THAT_DIES, str(daemon.home), small.hex()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
        )  # fmt: skip
        assert victim.stdout is not None
        number = int(victim.stdout.readline())
        during = client.call(m.GetStatistics()).figures
        assert during["leased_chunks"] == 2
        assert during["reserved_bytes"] > 0
        assert packs_of(daemon)[f"{number:016x}.pack"] > 10_000_000
        victim.kill()
        victim.communicate()
        # Its connection is closed by the kernel; the owner sees that before it answers a connection made later.
        with daemon.client() as later:
            after = later.call(m.GetStatistics()).figures
        assert (after["leased_chunks"], after["reserved_bytes"]) == (0, 0)
        assert packs_of(daemon) == packs
        assert client.call(m.ListEntries()).entries == []
        client.call(m.SaveEntry("main", "key", "saved", snapshot))
    assert daemon.stop() == 0


def test_a_client_cannot_commit_what_it_did_not_write(daemon: Any, tree: Path) -> None:
    daemon.start()
    with daemon.client() as honest, daemon.client() as liar:
        port = ClientIngestPort(honest)
        writer = port.open_pack()
        at = writer.append(ChunkId(b"c" * 32), 5, 0, b"12345")
        writer.sync()
        record = ChunkRecord(b"c" * 32, at.pack, at.offset, at.stored_bytes, at.raw_bytes, at.codec)
        with pytest.raises(Refused, match="is not the sender's"):
            liar.call(m.Commit(IngestCommit(chunks=[record])))
        with pytest.raises(Refused) as refused:
            honest.call(m.Commit(IngestCommit(chunks=[ChunkRecord(b"d" * 32, at.pack, at.offset, 9999, 9999, 0)])))
        assert refused.value.kind == "CommitRejected"
        missing = honest.call(m.Commit(IngestCommit(chunks=[record], uses=[b"e" * 32])))
        assert missing.chunk_ids == [b"e" * 32]
        assert honest.call(m.FindMissing([b"c" * 32])).chunk_ids == [b"c" * 32]
        writer.close()


def test_damaged_content_is_never_returned_and_is_stored_anew_when_it_comes_again(
    daemon: Any, tree: Path, tmp_path: Path
) -> None:
    daemon.start("--compression", "none")
    with daemon.client() as client:
        snapshot = save(client, tree)
    [pack] = (daemon.home / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    at = content.index(b"small\n")
    with pack.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"SMALL\n")
    with daemon.client() as client:
        with pytest.raises(ContentDamaged):
            read_back(client, snapshot, tmp_path / "bad")
        assert not client.call(m.GetStatus()).healthy
        assert save(client, tree) == snapshot
        assert_same(tree, read_back(client, snapshot, tmp_path / "good"))
    assert any(line["event"] == "a chunk is damaged" for line in daemon.log())


def test_a_full_vault_refuses_and_keeps_what_it_has(daemon: Any, tree: Path, tmp_path: Path) -> None:
    daemon.start(env={"TASKVAULT_VAULT_CAPACITY_BYTES": "64M", "TASKVAULT_VAULT_COMPRESSION": "none"})
    with daemon.client() as client:
        snapshot = save(client, tree)
        client.call(m.SaveEntry("main", "key", "saved", snapshot, pinned=True))
        (tree / "too much").write_bytes(os.urandom(70 << 20))
        with pytest.raises(Refused, match="room for") as refused:
            save(client, tree)
        assert refused.value.kind == "VaultFull"
    with daemon.client() as client:
        status = client.call(m.GetStatus())
        assert status.used_bytes <= status.capacity_bytes
        (tree / "too much").unlink()
        assert_same(tree, read_back(client, client.call(m.GetEntry("main", "key")).entry.snapshot, tmp_path / "copy"))
        client.call(m.RemoveEntry("main", "key"))
    assert daemon.stop() == 0


POINTS = ["commit.after_batch", "commit.after_wal_sync"]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_inside_a_commit_loses_nothing_that_was_acknowledged(
    daemon: Any, tree: Path, tmp_path: Path, point: str
) -> None:
    daemon.start()
    with daemon.client() as client:
        snapshot = save(client, tree)
        client.call(m.SaveEntry("main", "key", "saved", snapshot))
    assert daemon.stop() == 0
    daemon.start(env={"TASKVAULT_FAILPOINTS": f"{point}=kill"})
    with daemon.client() as client:
        (tree / "new").write_bytes(os.urandom(100_000))
        with pytest.raises(DaemonUnreachable):
            save(client, tree)
    assert daemon.wait() == -signal.SIGKILL
    (tree / "new").unlink()
    assert daemon.start()["ok"]
    with daemon.client() as client:
        assert_same(tree, read_back(client, client.call(m.GetEntry("main", "key")).entry.snapshot, tmp_path / "copy"))
        assert client.call(m.GetStatus()).healthy
