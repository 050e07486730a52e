from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tvfs.packs.pack_directory import PackDirectory, PackMissing
from tvfs.packs.pack_writer import PackWriteFailed
from tvfs.packs.record import PACK_HEADER_BYTES, PackHeader
from tvfs.packs.scan import read_pack_header

UUID = bytes(range(16))


def make(packs: PackDirectory, *numbers: int, length: int = 0) -> None:
    for number in numbers:
        fd = packs.create(number)
        os.pwrite(fd, random.Random(number).randbytes(length), PACK_HEADER_BYTES)
        os.fsync(fd)
        os.close(fd)
        packs.refresh(number)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_new_pack_begins_with_its_header_and_is_private(packs: PackDirectory, tmp_path: Path) -> None:
    fd = packs.create(0x1F)
    assert read_pack_header(fd) == PackHeader(0x1F, UUID)
    os.close(fd)
    path = tmp_path / "000000000000001f.pack"
    assert path.stat().st_mode & 0o777 == 0o600
    assert packs.size(0x1F) == PACK_HEADER_BYTES


def test_a_pack_is_never_created_twice(packs: PackDirectory) -> None:
    make(packs, 1, length=100)
    with pytest.raises(FileExistsError):
        packs.create(1)
    assert packs.size(1) == PACK_HEADER_BYTES + 100


def test_a_pack_that_cannot_be_created_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = PackDirectory(tmp_path, UUID)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(PackWriteFailed, match="disk is full"):
        packs.create(1)
    assert packs.numbers() == []


def test_only_packs_are_listed(packs: PackDirectory, tmp_path: Path) -> None:
    make(packs, 300, 2)
    for foreign in ("1.pack", "0000000000000001.pack~", "notes.txt", "000000000000000G.pack"):
        (tmp_path / foreign).write_bytes(b"")
    assert packs.numbers() == [2, 300]


def test_missing_packs_are_missing(packs: PackDirectory) -> None:
    packs.remove(5)
    with pytest.raises(PackMissing), packs.open_reader(5):
        pass
    with pytest.raises(PackMissing):
        packs.truncate(5, 0)
    with pytest.raises(PackMissing):
        packs.size(5)


def test_descriptors_are_kept_open_but_not_too_many(packs: PackDirectory) -> None:
    make(packs, 1, 2, 3)
    fds = {}
    for number in (1, 2, 1, 3):
        with packs.open_reader(number) as fds[number]:
            pass
    assert [is_open(fds[number]) for number in (1, 2)] == [True, fds[3] == fds[2]]
    with packs.open_reader(1, wait=False) as fd:
        assert fd == fds[1]
    with pytest.raises(BlockingIOError), packs.open_reader(2, wait=False):
        pass


def test_a_descriptor_in_use_outlives_its_place_in_the_table(packs: PackDirectory) -> None:
    make(packs, 1, 2, 3, 4)
    with packs.open_reader(1) as fd:
        for number in (2, 3, 4):
            with packs.open_reader(number):
                pass
        assert read_pack_header(fd).number == 1
        with packs.open_reader(1) as again:
            assert again != fd
    assert not is_open(fd)


def test_a_removed_pack_can_be_read_to_the_end(packs: PackDirectory) -> None:
    make(packs, 1)
    with packs.open_reader(1) as fd:
        packs.remove(1)
        assert read_pack_header(fd).number == 1
        with pytest.raises(PackMissing), packs.open_reader(1):
            pass
    assert not is_open(fd)
    assert packs.numbers() == []


def test_closing_leaves_readers_alone(packs: PackDirectory) -> None:
    make(packs, 1, 2)
    with packs.open_reader(2) as idle:
        pass
    with packs.open_reader(1) as fd:
        packs.close()
        assert not is_open(idle)
        assert is_open(fd)
    assert not is_open(fd)


def test_allocated_bytes_are_those_of_the_disk(packs: PackDirectory, tmp_path: Path) -> None:
    def on_disk() -> int:
        return sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())

    make(packs, 1, 2, 3, length=100_000)
    assert packs.allocated_bytes() == on_disk() >= 300_000
    assert packs.allocated_bytes(2) >= 100_000
    assert PackDirectory(tmp_path, UUID).allocated_bytes() == on_disk()
    packs.truncate(2, PACK_HEADER_BYTES)
    assert packs.allocated_bytes() == on_disk() < 300_000
    packs.remove(1)
    assert packs.allocated_bytes() == on_disk() < 200_000
    assert packs.allocated_bytes(1) == 0
    (tmp_path / f"{3:016x}.pack").unlink()
    packs.refresh(3)
    assert packs.allocated_bytes() == on_disk()


def test_threads_never_read_from_a_closed_or_foreign_descriptor(packs: PackDirectory) -> None:
    make(packs, *range(8))
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            packs.close()

    def read(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(2000):
            number = choose.randrange(8)
            with packs.open_reader(number) as fd:
                assert read_pack_header(fd).number == number

    churner = threading.Thread(target=churn)
    churner.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))
    finally:
        stop.set()
        churner.join()
