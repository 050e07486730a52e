"""What files under the mount hold, told instead of read: only while nobody can be writing to them."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from taskvault.client import Client
from taskvault.errors import Refused
from taskvault.mounted import MountedTree
from taskvault.protocol import messages as m
from taskvault.run import digests as digests_module
from taskvault.run.digests import Digests
from taskvault.run.memory import Memory
from taskvault.run.mounted_digests import MountedDigests
from taskvault.snapshots import take_snapshot
from tests.thinned import thinned
from tvfs.fuse.settings import TRANSPORTS
from tvfs.plugin_api import PluginRegistry

pytestmark = pytest.mark.kernel

BLAKE3 = PluginRegistry().hash_function("blake3")


@pytest.fixture(autouse=True, params=thinned(TRANSPORTS))
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKVAULT_MOUNT_TRANSPORT", request.param)


def seen(place: Path) -> m.MountedFile:
    status = os.lstat(place)
    return m.MountedFile(status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def told(client: Client, place: Path) -> bytes:
    return client.call(m.FindDigests([seen(place)])).hashes[0]


def seal(client: Client, path: str) -> None:
    client.call(m.SnapshotLive(path))


@pytest.mark.parametrize("content", [b"", b"short", os.urandom(3 << 20)], ids=["empty", "short", "long"])
def test_the_hash_is_that_of_the_content(daemon: Any, content: bytes) -> None:
    daemon.start(mounted=True)
    place = daemon.mount / "work" / "in"
    place.write_bytes(content)
    with daemon.client() as client:
        seal(client, "work")
        assert told(client, place) == BLAKE3.digest(content)


def test_it_is_told_of_an_attached_tree_too(daemon: Any, tree: Path) -> None:
    daemon.start(mounted=True)
    with daemon.client() as client:
        MountedTree.of(client).attach(take_snapshot(client, tree, ["small", "deep"]), daemon.mount / "work" / "out")
        for path in ("small", "deep/deeper/large"):
            assert told(client, daemon.mount / "work" / "out" / path) == BLAKE3.digest((tree / path).read_bytes())


def test_while_it_can_be_written_to_nothing_is_told_and_afterwards_what_was_written(daemon: Any) -> None:
    daemon.start(mounted=True)
    place = daemon.mount / "work" / "in"
    place.write_bytes(b"a" * 10_000)
    with daemon.client() as client:
        seal(client, "work")
        with open(place, "r+b") as file:
            assert told(client, place) == b""
            with mmap.mmap(file.fileno(), 0) as mapped:
                mapped[0:1] = b"b"
                assert told(client, place) == b""
        assert told(client, place) in (b"", BLAKE3.digest(b"b" + b"a" * 9_999))
        seal(client, "work")
        assert told(client, place) == BLAKE3.digest(b"b" + b"a" * 9_999)
        os.truncate(place, 5)
        assert told(client, place) in (b"", BLAKE3.digest(b"baaaa"))


def test_what_is_not_the_file_that_was_looked_at_is_unknown(daemon: Any, tmp_path: Path) -> None:
    daemon.start(mounted=True)
    place = daemon.mount / "work" / "in"
    place.write_bytes(b"a")
    with daemon.client() as client:
        seal(client, "work")
        file = seen(place)
        others = [
            replace(file, ino=file.ino + 1000),
            replace(file, ino=0),
            replace(file, ino=-1),
            replace(file, ino=1 << 64 - 1),
            replace(file, ctime_ns=file.ctime_ns - 1),
            replace(file, mtime_ns=file.mtime_ns + 1),
            replace(file, size=2),
            replace(file, mode=file.mode ^ 0o100),
            seen(daemon.mount / "work"),
        ]
        assert client.call(m.FindDigests([*others, file])).hashes == [b""] * len(others) + [BLAKE3.digest(b"a")]
        with pytest.raises(Refused, match="at most"):
            client.call(m.FindDigests([file] * 1000))


def test_a_look_does_not_open_what_it_is_told(daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.start(mounted=True)
    inside, outside = daemon.mount / "work" / "in", tmp_path / "out"
    for place in (inside, outside):
        place.write_bytes(b"content")
    opened: list[bytes] = []
    read = os.open

    def counted(place: bytes, flags: int) -> int:
        opened.append(place)
        return read(place, flags)

    with daemon.client() as client:
        seal(client, "work")
        memory = Memory()
        digests = Digests(BLAKE3, memory, MountedDigests(client, memory, patience_s=10))
        monkeypatch.setattr(digests_module.os, "open", counted)
        for place in (inside, outside):
            assert digests(os.fsencode(place), os.lstat(place)) == BLAKE3.digest(b"content")
        assert opened == [os.fsencode(outside)]
        with open(inside, "ab"):
            again = Digests(BLAKE3, memory, MountedDigests(client, memory, patience_s=10))
            assert again(os.fsencode(inside), os.lstat(inside)) == BLAKE3.digest(b"content")
    assert opened[1:] == [os.fsencode(inside)], "somebody could be writing to it"
