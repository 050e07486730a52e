"""The daemon with its mount: what entries look like, what clients publish, and how it all ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskvault.client import Client
from taskvault.errors import Refused
from taskvault.mounted import MountedTree
from taskvault.protocol import messages as m
from taskvault.snapshots import take_snapshot
from tests.thinned import thinned
from tests.waiting import wait_until
from tvfs.fuse.settings import TRANSPORTS

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True, params=thinned(TRANSPORTS))
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with each way to speak with the kernel."""
    monkeypatch.setenv("TASKVAULT_MOUNT_TRANSPORT", request.param)


def is_mounted(point: Path) -> bool:
    return any(line.split()[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def content_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_entries_runs_and_snapshots_are_shown_and_change_with_what_they_show(daemon: Any, tree: Path) -> None:
    told = daemon.start(mounted=True)
    mount = daemon.mount
    assert told["mount"] == str(mount)
    with daemon.client() as client:
        assert client.welcome.mount == client.call(m.GetStatus()).mount == str(mount)
        first = take_snapshot(client, tree, ["small", "deep"])
        client.call(m.SaveEntry("pr/1", "key", "saved", first))
        shown = mount / "keys" / "pr%2F1" / "key"
        assert content_of(shown) == {
            "small": b"small\n",
            "deep/program": b"#!/bin/sh\n",
            "deep/deeper/large": (tree / "deep/deeper/large").read_bytes(),
        }
        with pytest.raises(OSError, match="Read-only file system"):
            (shown / "small").write_text("changed")

        (tree / "small").write_text("other\n")
        second = take_snapshot(client, tree, ["small"])
        client.call(m.SaveEntry("pr/1", "key", "saved", second, replace=True))
        assert content_of(shown) == {"small": b"other\n"}
        client.call(m.NameSnapshot("release", first))
        client.call(m.NameSnapshot("release", second, replace=True))
        assert content_of(mount / "snapshots" / "release") == {"small": b"other\n"}

        client.call(m.SaveEntry("main", "action", "run", first))
        record = m.RunRecord("", 1, 2, ["make"], "/", ".", "main", "action", "stored", "", 0)
        run = client.call(m.RecordRun(record)).record.run
        assert os.listdir(mount / "runs") == [run]
        assert (mount / "runs" / run / "small").read_bytes() == b"small\n"
        assert not (mount / "keys" / "main").exists()

        client.call(m.RemoveEntry("main", "action"))
        client.call(m.RemoveEntry("pr/1", "key"))
        assert os.listdir(mount / "runs") == os.listdir(mount / "keys" / "pr%2F1") == []
        assert sorted(os.listdir(mount)) == ["cas", "keys", "runs", "snapshots", "work"]
    assert daemon.stop() == 0
    assert not is_mounted(mount)
    daemon.start(mounted=True)
    assert content_of(mount / "snapshots" / "release") == {"small": b"other\n"}


def test_what_is_prepared_is_published_by_rename_or_goes_with_the_connection(daemon: Any, tree: Path) -> None:
    daemon.start(mounted=True)
    work, hidden = daemon.mount / "work", daemon.mount / ".taskvault"
    with daemon.client() as client, daemon.client() as other:
        snapshot = take_snapshot(client, tree, ["deep", "link"])
        MountedTree.of(client).attach(snapshot, work / "out")
        assert os.readlink(work / "out" / "link") == "small"
        (work / "out" / "deep" / "program").write_text("changed")
        one = client.call(m.PrepareAttach(snapshot, "deep/program")).path
        assert (daemon.mount / one).read_bytes() == b"#!/bin/sh\n"
        os.rename(daemon.mount / one, work / "program")
        with pytest.raises(Refused) as refused:
            client.call(m.PrepareAttach(snapshot, "deep/nothing"))
        assert refused.value.kind == "NotFound"

        abandoned = client.call(m.PrepareAttach(snapshot)).path
        assert (daemon.mount / abandoned).is_dir()
        with pytest.raises(Refused) as refused:
            other.call(m.Discard(abandoned))
        assert refused.value.kind == "PreparedUnknown"
        MountedTree.of(client).remove(work / "out")
        assert sorted(os.listdir(work)) == ["program"]
    with daemon.client() as client:
        client.call(m.GetStatus())
        assert os.listdir(hidden) == []
        assert not (daemon.mount / abandoned).exists()
        assert (work / "program").read_bytes() == b"#!/bin/sh\n"


def test_a_live_tree_is_kept_as_it_is(daemon: Any, tree: Path) -> None:
    daemon.start(mounted=True)
    work = daemon.mount / "work"
    (work / "built" / "sub").mkdir(parents=True)
    (work / "built" / "a").write_text("a")
    (work / "built" / "sub" / "b").write_text("b")
    with daemon.client() as client:
        whole = client.call(m.SnapshotLive("work/built")).snapshot
        assert (whole.files, whole.size) == (2, 2)
        assert client.call(m.SnapshotLive("work/built", excluded=["sub"])).snapshot.files == 1
        assert client.call(m.SnapshotLive("work/built", paths=["sub/b"])).snapshot.files == 1
        client.call(m.SaveEntry("main", "built", "saved", whole))
        (work / "built" / "a").write_text("changed")
        assert content_of(daemon.mount / "keys/main/built") == {"a": b"a", "sub/b": b"b"}
        with (work / "built" / "a").open("r+") as writer:
            with pytest.raises(Refused) as refused:
                client.call(m.SnapshotLive("work/built"))
            assert refused.value.kind == "OpenForWriting"
            assert "a" in str(refused.value)
            reply = client.call(m.SnapshotLive("work/built", allow_open=True))
            assert [path.rpartition("/")[2] for path in reply.open_for_writing] == ["a"]
            writer.write("!")
        with pytest.raises(Refused) as refused:
            client.call(m.SnapshotLive("work/nothing"))
        assert refused.value.kind == "NotFound"


BUSY_WRITERS = """
import os, sys
spread, growing = (os.open(path, os.O_RDWR | os.O_CREAT) for path in sys.argv[1:])
os.pwrite(spread, os.urandom(6 << 20), 0)
for number in range(10**9):
    os.pwrite(spread, b"%08d" % number, 0)
    os.pwrite(spread, b"%08d" % number, 6 << 20)
    os.write(growing, b"%08d" % number)
    if number == 10:
        print("busy", flush=True)
"""


def test_a_snapshot_beside_busy_writers_has_of_each_file_a_state_that_it_had_and_names_those_that_are_open(
    daemon: Any,
) -> None:
    daemon.start(mounted=True)
    built = daemon.mount / "work" / "built"
    built.mkdir()
    (built / "done").write_bytes(b"done")
    busy = [built / name for name in ("spread0", "growing0", "spread1", "growing1")]
    writers = [
        subprocess.Popen([sys.executable, "-c", BUSY_WRITERS, *busy[at : at + 2]], stdout=subprocess.PIPE)
        for at in (0, 2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"busy\n"
        with daemon.client() as client:
            for number in range(2):
                reply = client.call(m.SnapshotLive("work/built", allow_open=True))
                assert {path.rpartition("/")[2] for path in reply.open_for_writing} == {path.name for path in busy}
                client.call(m.SaveEntry("main", f"{number}", "saved", reply.snapshot))
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    for number in range(2):
        kept = content_of(daemon.mount / "keys/main" / f"{number}")
        assert kept.pop("done") == b"done"
        assert sorted(kept) == sorted(path.name for path in busy)
        for name, content in kept.items():
            if name.startswith("spread"):
                assert int(content[:8]) - int(content[6 << 20 :]) in (0, 1), "written in this order, read at once"
            else:
                assert len(content) % 8 == 0
                assert content == b"".join(b"%08d" % line for line in range(len(content) // 8))


WRITER_THAT_STAYS = """
import sys
file = open(sys.argv[1], "wb")
file.write(b"d" * 3_000_000)
file.flush()
print("written", flush=True)
sys.stdin.read()
"""


def test_sigterm_loses_nothing_that_was_written_even_to_a_file_that_is_still_open(daemon: Any) -> None:
    daemon.start(mounted=True)
    work = daemon.mount / "work"
    (work / "closed").write_bytes(b"c" * 1_000_000)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER_THAT_STAYS, str(work / "open")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    assert daemon.stop() == 0
    assert not is_mounted(daemon.mount)
    writer.kill()
    writer.communicate()
    daemon.start(mounted=True)
    assert (work / "closed").read_bytes() == b"c" * 1_000_000
    assert (work / "open").read_bytes() == b"d" * 3_000_000


def test_kill_9_loses_nothing_that_was_closed_and_the_dead_mount_is_replaced(daemon: Any, tree: Path) -> None:
    daemon.start(mounted=True)
    work = daemon.mount / "work"
    with daemon.client() as client:
        MountedTree.of(client).attach(take_snapshot(client, tree, ["deep"]), work / "out")
    for number in range(100):
        (work / "out" / f"{number}").write_bytes(b"%d" % number * 1000)
    before = content_of(work)
    daemon.kill()
    assert is_mounted(daemon.mount)
    assert daemon.start(mounted=True)["ok"]
    assert content_of(work) == before
    assert daemon.stop() == 0
    assert not is_mounted(daemon.mount)


def test_a_client_is_told_who_uses_the_mount_and_may_insist(daemon: Any) -> None:
    daemon.start(mounted=True)
    user = subprocess.Popen(["sleep", "60"], cwd=daemon.mount / "work")
    try:
        with daemon.client() as client:
            with pytest.raises(Refused, match=f"sleep \\(pid {user.pid}") as refused:
                client.call(m.Shutdown())
            assert refused.value.kind == "MountHeld"
            (daemon.mount / "work" / "still").write_text("there")
            assert client.call(m.GetStatus()).healthy
            assert client.call(m.Shutdown(force=True)) == m.Done()
        assert daemon.wait() == 0
    finally:
        user.kill()
        user.wait()


def test_an_unmount_by_hand_ends_the_daemon_in_order(daemon: Any) -> None:
    daemon.start(mounted=True)
    (daemon.mount / "work" / "file").write_text("kept")
    subprocess.run(["umount", str(daemon.mount)], check=True)
    assert daemon.wait() == 0
    assert daemon.log()[-1]["event"] == "stopped"
    daemon.start(mounted=True)
    assert (daemon.mount / "work" / "file").read_text() == "kept"


def test_a_mount_point_that_is_not_empty_is_left_alone(daemon: Any) -> None:
    daemon.mount.mkdir()
    (daemon.mount / "precious").touch()
    told = daemon.start(mounted=True)
    assert daemon.wait() == told["exit_code"] == 5
    assert "'precious'" in told["error"]
    assert not (daemon.home / "control.sock").exists()
    assert daemon.start()["ok"]
    assert daemon.stop() == 0


def test_a_second_signal_ends_a_stop_that_waits(daemon: Any) -> None:
    daemon.start(mounted=True)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert not is_mounted(daemon.mount)
    daemon.start(mounted=True)
    assert daemon.stop() == 0


def nothing_is_open(client: Client) -> bool:
    return client.call(m.GetActivity()).open_files == 0


def test_a_listing_that_the_kernel_keeps_has_what_the_daemon_added_and_removed_since(daemon: Any, tree: Path) -> None:
    daemon.start(mounted=True)
    keys = daemon.mount / "keys"
    with daemon.client() as client:
        client.call(m.SaveEntry("main", "one", "saved", take_snapshot(client, tree, ["."])))
        held = os.open(keys / "main", os.O_DIRECTORY)
        for place in (keys, keys / "main", keys, keys / "main"):
            os.listdir(place)
        assert os.listdir(held) == ["one"]
        client.call(m.SaveEntry("main", "two", "saved", take_snapshot(client, tree, ["."])))
        assert os.listdir(keys / "main") == ["one", "two"]
        wait_until(lambda: os.listdir(held) == ["one", "two"])
        client.call(m.SaveEntry("other", "one", "saved", take_snapshot(client, tree, ["."])))
        assert os.listdir(keys) == ["main", "other"]
        client.call(m.RemoveEntry("main", "one"))
        assert os.listdir(keys / "main") == ["two"]
        wait_until(lambda: os.listdir(held) == ["two"])
        os.close(held)


def test_what_is_forgotten_gives_its_room_back_though_the_kernel_remembers_its_names(daemon: Any, tree: Path) -> None:
    daemon.start(mounted=True)
    with daemon.client() as client:
        client.call(m.SaveEntry("main", "key", "saved", take_snapshot(client, tree, ["."])))
    with daemon.client() as client:
        # Every name below is known to the kernel now, and each is a reference to its inode.
        assert content_of(daemon.mount / "keys")
        # The kernel tells of what was closed when it comes to it; until then it is open, and kept.
        wait_until(lambda: nothing_is_open(client))
        client.call(m.RemoveEntry("main", "key"))

        def nothing_is_left() -> bool:
            # The kernel is told of the removal, and lets go of what it knew when it comes to it.
            client.call(m.CollectGarbage(), timeout_s=60)
            return bool(client.call(m.GetStatistics()).figures["live_bytes"] == 0)

        wait_until(nothing_is_left)
