"""A small vault whose `work/cache` is evictable, through the real mount: it takes new files for ever."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from taskvault.errors import Refused
from taskvault.mounted import MountedTree
from taskvault.protocol import messages as m
from taskvault.snapshots import take_snapshot
from tests.daemon.conftest import Daemon
from tests.faults.disk_sampler import sampled
from tests.vaults_in_order import assert_in_order
from tests.waiting import wait_until

MIB = 1 << 20
SIZE = 64 * MIB

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["kernel", pytest.param("pyfuse3", marks=pytest.mark.slow)])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cached(make_daemon: Callable[..., Daemon], transport: str) -> Iterator[Daemon]:
    daemon = make_daemon()
    daemon.start("--size", "64M", mounted=True, env={"TASKVAULT_MOUNT_TRANSPORT": transport})
    (daemon.mount / "work" / "cache").mkdir()
    mark(daemon, "work/cache")
    yield daemon
    assert daemon.stop() == 0
    errors = [line for line in daemon.log() if line["level"] == "error"]
    # On a busy machine nothing is done in 5 ms, ranking neither.
    assert [line["event"] for line in errors if "nobody was served meanwhile" not in line.get("reason", "")] == []
    assert_in_order(daemon.home)


def mark(daemon: Daemon, path: str, evictable: bool = True) -> None:
    with daemon.client() as client:
        client.call(m.MarkEvictable(path, evictable))


def evict(daemon: Daemon, size_bytes: int = 1 << 40) -> None:
    """Evict as much as there is."""
    with daemon.client() as client:
        client.call(m.CollectGarbage(evict_bytes=size_bytes))


def bytes_of(number: int, size: int = 2 * MIB) -> bytes:
    return random.Random(number).randbytes(size)


@pytest.mark.slow
def test_a_cache_takes_new_files_for_ever_and_what_is_beside_it_is_not_touched(cached: Daemon) -> None:
    work = cached.mount / "work"
    (work / "ordinary").mkdir()
    for number in range(4):
        (work / "ordinary" / str(number)).write_bytes(bytes_of(-number))
    with sampled(cached.home) as sampler:
        for number in range(50):
            (work / "cache" / f"{number}").write_bytes(bytes_of(number))
    assert sampler.highest_bytes <= SIZE, sampler.at_highest
    left = sorted(map(int, os.listdir(work / "cache")))
    assert left[-1] == 49
    assert 0 not in left
    for number in left:
        with suppress(FileNotFoundError):  # evicted meanwhile
            assert (work / "cache" / str(number)).read_bytes() == bytes_of(number)
    assert all((work / "ordinary" / str(number)).read_bytes() == bytes_of(-number) for number in range(4))
    with cached.client() as client:
        assert client.call(m.CollectGarbage(check=True)).findings == []


@pytest.mark.slow
def test_an_ordinary_directory_takes_all_room_from_the_cache_and_is_then_full_by_itself(cached: Daemon) -> None:
    work = cached.mount / "work"
    for number in range(8):
        (work / "cache" / str(number)).write_bytes(bytes_of(number))
    time.sleep(2)  # a file that was just written is left alone for a moment
    written = []
    with pytest.raises(OSError) as full:  # noqa: PT012 - until it is full
        for number in range(100):
            (work / f"kept-{number}").write_bytes(bytes_of(number + 1000))
            written.append(number)
    assert full.value.errno == errno.ENOSPC
    assert len(written) * 2 * MIB > SIZE // 2
    assert os.listdir(work / "cache") == []
    for number in written:
        assert (work / f"kept-{number}").read_bytes() == bytes_of(number + 1000)
    for number in (*written, len(written)):
        (work / f"kept-{number}").unlink()


@pytest.mark.slow
def test_an_open_file_stays_and_can_be_read(cached: Daemon) -> None:
    path = cached.mount / "work" / "cache" / "open"
    path.write_bytes(bytes_of(1))
    mapped = cached.mount / "work" / "cache" / "mapped"
    mapped.write_bytes(bytes_of(2))
    with path.open("rb") as file:
        time.sleep(1.2)
        evict(cached)
        assert file.read() == bytes_of(1)
        assert not mapped.exists()
        assert path.exists()
    time.sleep(0.3)
    evict(cached)
    assert not path.exists()


def test_the_kernel_believes_in_no_name_that_is_gone_and_programs_make_it_anew(cached: Daemon) -> None:
    cache = cached.mount / "work" / "cache"
    (cache / "d").mkdir()
    paths = [cache / "d" / str(number) for number in range(50)]
    for round_ in range(2):
        for path in paths:
            path.write_text(f"{round_}")
        assert all(path.stat().st_size == 1 for path in paths)
        time.sleep(1.2)
        evict(cached)
        wait_until(lambda: not any(map(os.path.lexists, paths)))
        assert os.listdir(cache / "d") == []
        assert subprocess.run(["cat", str(paths[0])], capture_output=True, check=False).returncode == 1
        paths[0].write_text("anew")
        assert paths[0].read_text() == "anew"
        assert os.listdir(cache / "d") == ["0"]


def test_a_writer_that_opens_what_has_just_been_evicted_loses_nothing(cached: Daemon) -> None:
    """The kernel may believe in a name for a moment: a file that is opened by it then is made anew."""
    cache = cached.mount / "work" / "cache"
    paths = [cache / str(number) for number in range(300)]
    for path in paths:
        path.write_text("before")
    time.sleep(1.2)
    process = subprocess.Popen(["sh", "-c", 'for n in $(seq 0 299); do echo after > "$1/$n"; done', "sh", str(cache)])
    evict(cached)
    assert process.wait() == 0
    lost = [path.name for path in paths if path.exists() and path.read_text() not in ("after\n",)]
    assert lost == []


@pytest.mark.slow
def test_an_attached_tree_in_a_cache_gives_its_room_back(cached: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    for number in range(10):
        (source / "below" / str(number)).write_bytes(bytes_of(number))
    with cached.client() as client:
        tree = MountedTree.of(client)
        assert tree is not None
        tree.attach(take_snapshot(client, source, ["."]), cached.mount / "work" / "cache" / "tree")
    for number in range(35):
        (cached.mount / "work" / "cache" / f"new-{number}").write_bytes(bytes_of(100 + number))
    assert os.listdir(cached.mount / "work" / "cache" / "tree" / "below") == []


def test_a_killed_daemon_has_evicted_all_of_a_file_or_nothing(cached: Daemon, transport: str) -> None:
    cache = cached.mount / "work" / "cache"
    for number in range(16):
        (cache / str(number)).write_bytes(bytes_of(number, MIB))
    time.sleep(1.2)
    script = 'for n in $(seq 100 140); do head -c 2M /dev/urandom > "$1/$n" || exit; done'
    process = subprocess.Popen(["sh", "-c", script, "sh", str(cache)], stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    cached.kill()
    process.wait()
    cached.start(mounted=True, env={"TASKVAULT_MOUNT_TRANSPORT": transport})
    for name in os.listdir(cache):
        try:
            content = (cache / name).read_bytes()
        except FileNotFoundError:  # evicted meanwhile
            continue
        assert int(name) >= 100 or content == bytes_of(int(name), MIB)
    for number in range(10):
        (cache / f"{200 + number}").write_bytes(bytes_of(number))


def test_only_directories_below_work_can_be_marked(cached: Daemon) -> None:
    (cached.mount / "work" / "file").write_text("x")
    for path in ("", "work", "keys", "work/../snapshots", "work/file", "work/missing", "work/file/x"):
        with pytest.raises(Refused):
            mark(cached, path)
    with cached.client() as client:
        assert client.call(m.DescribePath("work/cache")).evictable
        (cached.mount / "work" / "cache" / "f").write_text("x")
        assert client.call(m.DescribePath("work/cache/f")).evictable
        assert not client.call(m.DescribePath("work/file")).evictable
        assert not client.call(m.DescribePath("work")).evictable
