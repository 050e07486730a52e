"""What files under the mount hold, told instead of read: only while nobody can be writing to them."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
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
    return m.MountedFile(
        status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def told(client: Client, place: Path) -> bytes:
    return client.call(m.FindDigests([seen(place)])).hashes[0]


def seal(client: Client) -> None:
    """Seal everything."""
    client.call(m.SnapshotLive("work"))


def mounted_anew(daemon: Any, **files: bytes) -> Path:
    """Return `work` of a daemon that found these files when it started, sealed: nobody had them open for writing."""
    daemon.start(mounted=True)
    for name, content in files.items():
        (daemon.mount / "work" / name).write_bytes(content)
    with daemon.client() as client:
        seal(client)
    assert daemon.stop() == 0
    daemon.start(mounted=True)
    return Path(daemon.mount / "work")


@pytest.mark.parametrize("content", [b"", b"short", os.urandom(3 << 20)], ids=["empty", "short", "long"])
def test_the_hash_is_that_of_the_content(daemon: Any, content: bytes) -> None:
    work = mounted_anew(daemon, given=content)
    with daemon.client() as client:
        assert told(client, work / "given") == BLAKE3.digest(content)


def test_it_is_told_of_an_attached_tree_too(daemon: Any, tree: Path) -> None:
    daemon.start(mounted=True)
    with daemon.client() as client:
        MountedTree.of(client).attach(take_snapshot(client, tree, ["small", "deep"]), daemon.mount / "work" / "out")
        for path in ("small", "deep/deeper/large"):
            assert told(client, daemon.mount / "work" / "out" / path) == BLAKE3.digest((tree / path).read_bytes())


def test_of_what_was_open_for_writing_nothing_is_told_until_the_kernel_knows_the_mount_anew(daemon: Any) -> None:
    """The kernel shows readers what it could not write, for as long as it keeps it."""
    work = mounted_anew(daemon, given=b"a" * 10_000, other=b"other")
    place = work / "given"
    with daemon.client() as client:
        assert told(client, place) == BLAKE3.digest(b"a" * 10_000)
        with open(place, "r+b") as file:
            assert told(client, place) == b""
            mapped = mmap.mmap(file.fileno(), 0)
        mapped[0:1] = b"b"
        assert told(client, place) == b""
        mapped.close()
        seal(client)
        assert told(client, place) == b""
        assert told(client, work / "other") == BLAKE3.digest(b"other")
    assert daemon.stop() == 0
    daemon.start(mounted=True)
    with daemon.client() as client:
        assert told(client, place) == BLAKE3.digest(b"b" + b"a" * 9_999)
        os.truncate(place, 5)
        assert told(client, place) in (b"", BLAKE3.digest(b"baaaa"))


def test_what_is_not_the_file_that_was_looked_at_is_unknown(daemon: Any) -> None:
    work = mounted_anew(daemon, given=b"a")
    with daemon.client() as client:
        file = seen(work / "given")
        others = [
            replace(file, device=file.device + 1),
            replace(file, ino=file.ino + 1000),
            replace(file, ino=0),
            replace(file, ino=-1),
            replace(file, ino=1 << 63),
            replace(file, ctime_ns=file.ctime_ns - 1),
            replace(file, mtime_ns=file.mtime_ns + 1),
            replace(file, size=2),
            replace(file, mode=file.mode ^ 0o100),
            seen(work),
        ]
        assert client.call(m.FindDigests([*others, file])).hashes == [b""] * len(others) + [BLAKE3.digest(b"a")]
        with pytest.raises(Refused, match="at most"):
            client.call(m.FindDigests([file] * 1000))


def test_the_same_file_of_a_vault_that_is_a_copy_is_unknown(
    daemon: Any, make_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    """All but the number of the file system is alike there; what is in the file need not be."""
    daemon.start(mounted=True)
    (daemon.mount / "work" / "given").write_bytes(b"a")
    with daemon.client() as client:
        seal(client)
    assert daemon.stop() == 0
    copied = make_daemon(tmp_path / "beside" / "vault")
    shutil.copytree(daemon.home, copied.home, ignore=shutil.ignore_patterns("mnt", "*.sock"))
    for each in (daemon, copied):
        each.start(mounted=True)
    ours, theirs = (each.mount / "work" / "given" for each in (daemon, copied))
    assert replace(seen(ours), device=0) == replace(seen(theirs), device=0)
    with daemon.client() as client:
        assert told(client, ours) == BLAKE3.digest(b"a")
        assert told(client, theirs) == b""
        memory = Memory()
        asking = MountedDigests(client, memory, patience_s=10)
        assert asking(os.fsencode(theirs), os.lstat(theirs)) is None


def test_a_look_does_not_open_what_it_is_told(daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = mounted_anew(daemon, given=b"content") / "given", tmp_path / "out"
    outside.write_bytes(b"content")
    places = [os.fsencode(inside), os.fsencode(outside)]
    opened: list[bytes] = []
    read = os.open

    def counted(place: Any, *more: Any, **named: Any) -> int:
        opened.append(place)
        return read(place, *more, **named)

    with daemon.client() as client:
        memory = Memory()
        digests = Digests(BLAKE3, memory, MountedDigests(client, memory, patience_s=10))
        monkeypatch.setattr(digests_module.os, "open", counted)
        for place in (inside, outside):
            assert digests(os.fsencode(place), os.lstat(place)) == BLAKE3.digest(b"content")
        assert [each for each in opened if each in places] == [places[1]]
        with open(inside, "ab"):
            again = Digests(BLAKE3, memory, MountedDigests(client, memory, patience_s=10))
            assert again(os.fsencode(inside), os.lstat(inside)) == BLAKE3.digest(b"content")
    assert [each for each in opened if each in places] == [places[1], places[0]], "somebody could be writing to it"
