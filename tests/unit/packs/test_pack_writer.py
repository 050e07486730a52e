from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tvfs import failpoints
from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_reader import read_payload
from tvfs.packs.pack_writer import BUFFER_BYTES, DiskFull, PackSyncFailed, PackWriteFailed, PackWriter
from tvfs.packs.record import PACK_HEADER_BYTES, RECORD_HEADER_BYTES, PackDamaged
from tvfs.packs.scan import scan_pack

UUID = bytes(range(16))


def chunk(number: int, length: int = 1000) -> tuple[ChunkId, bytes]:
    payload = random.Random(number).randbytes(length)
    return ChunkId(hashlib.sha256(payload).digest()), payload


def append(writer: PackWriter, number: int, length: int = 1000) -> Location:
    chunk_id, payload = chunk(number, length)
    return writer.append(chunk_id, length * 2, 1, payload)


def contents(packs: PackDirectory, number: int) -> list[ChunkId]:
    with packs.open_reader(number) as fd:
        return [record.chunk_id for record in scan_pack(fd, check_payloads=True) if record.intact]


@pytest.fixture
def writer(packs: PackDirectory) -> Iterator[PackWriter]:
    writer = PackWriter(packs.create(7), 7, UUID)
    yield writer
    failpoints.disarm_all()
    writer.close()


def test_records_follow_each_other_from_the_header_on(packs: PackDirectory, writer: PackWriter) -> None:
    first, second = append(writer, 1, 10), append(writer, 2, 20)
    assert first == Location(7, PACK_HEADER_BYTES, 10, 20, 1)
    assert second == Location(7, PACK_HEADER_BYTES + RECORD_HEADER_BYTES + 10, 20, 40, 1)
    assert writer.size == second.offset + RECORD_HEADER_BYTES + 20
    assert writer.sync() == writer.size == packs.size(7)
    assert contents(packs, 7) == [chunk(1, 10)[0], chunk(2, 20)[0]]


def test_what_is_buffered_is_readable_from_the_writer_then_from_the_pack(
    packs: PackDirectory, writer: PackWriter
) -> None:
    flushed = append(writer, 1)
    writer.flush()
    waiting = append(writer, 2)
    assert writer.buffered(flushed) is None
    assert writer.buffered(waiting) == chunk(2)[1]
    assert packs.size(7) == waiting.offset == writer.written_bytes
    writer.flush()
    with packs.open_reader(7) as fd:
        assert read_payload(fd, waiting, chunk(2)[0]) == chunk(2)[1]


def test_the_buffer_is_written_when_it_is_full(packs: PackDirectory, writer: PackWriter) -> None:
    for number in range(5):
        append(writer, number, BUFFER_BYTES // 2)
        assert writer.size - packs.size(7) <= BUFFER_BYTES
    append(writer, 9, 3 * BUFFER_BYTES)
    writer.flush()
    assert packs.size(7) == writer.size
    assert len(contents(packs, 7)) == 6


def test_a_writer_continues_where_it_is_told_to(packs: PackDirectory, writer: PackWriter) -> None:
    append(writer, 1)
    end = writer.size
    writer.close()
    again = PackWriter(os.open(packs.path / f"{7:016x}.pack", os.O_RDWR), 7, UUID, start=end)
    append(again, 2)
    again.sync()
    again.close()
    assert contents(packs, 7) == [chunk(1)[0], chunk(2)[0]]


def test_the_descriptor_of_another_pack_is_refused(packs: PackDirectory) -> None:
    fd = packs.create(1)
    with pytest.raises(PackDamaged, match="another pack"):
        PackWriter(fd, 2, UUID)
    with pytest.raises(PackDamaged, match="another pack"):
        PackWriter(fd, 1, bytes(16))
    os.close(fd)


@contextmanager
def disk_that_ends_at(length: int) -> Iterator[None]:
    """No file can be longer: a write across it is short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_short_write_leaves_no_half_record_and_the_writer_usable(packs: PackDirectory, writer: PackWriter) -> None:
    append(writer, 1)
    writer.flush()
    good = writer.size
    append(writer, 2)
    append(writer, 3)
    with disk_that_ends_at(good + 1500):
        with pytest.raises(PackWriteFailed) as raised:
            writer.flush()
        assert raised.value.errno == errno.EFBIG
        assert packs.size(7) == good
    append(writer, 4)
    writer.sync()
    assert contents(packs, 7) == [chunk(number)[0] for number in (1, 2, 3, 4)]


def test_a_full_disk_is_said_and_nothing_is_lost(packs: PackDirectory, writer: PackWriter) -> None:
    append(writer, 1)
    failpoints.arm("commit.before_append", failpoints.ACTIONS["enospc"])
    with pytest.raises(DiskFull, match="The disk is full"):
        writer.sync()
    failpoints.disarm_all()
    assert writer.sync() == writer.size
    assert contents(packs, 7) == [chunk(1)[0]]


def test_a_record_that_did_not_fit_was_not_added(packs: PackDirectory, writer: PackWriter) -> None:
    append(writer, 1, BUFFER_BYTES // 2)
    failpoints.arm("commit.before_append", failpoints.ACTIONS["enospc"])
    with pytest.raises(DiskFull):
        append(writer, 2, BUFFER_BYTES // 2)
    failpoints.disarm_all()
    append(writer, 3, 100)
    writer.sync()
    assert contents(packs, 7) == [chunk(1, BUFFER_BYTES // 2)[0], chunk(3, 100)[0]]


def test_after_a_failed_sync_the_writer_takes_nothing_more(writer: PackWriter) -> None:
    append(writer, 1)
    safe = writer.sync()
    append(writer, 2)
    failpoints.arm("commit.after_append", failpoints.ACTIONS["eio"])
    with pytest.raises(PackSyncFailed) as raised:
        writer.sync()
    assert raised.value.synced_bytes == safe == writer.synced_bytes
    failpoints.disarm_all()
    for call in (writer.sync, writer.flush, lambda: append(writer, 3)):
        with pytest.raises(PackSyncFailed):
            call()


def test_the_points_of_the_commit_order_are_reached_in_order(packs: PackDirectory, writer: PackWriter) -> None:
    reached: list[tuple[str, int]] = []

    def note(point: str) -> None:
        reached.append((point, packs.size(7)))

    for point in failpoints.POINTS[:3]:
        failpoints.arm(point, partial(note, point))
    append(writer, 1)
    writer.sync()
    assert reached == [
        ("commit.before_append", PACK_HEADER_BYTES),
        ("commit.after_append", writer.size),
        ("commit.after_pack_sync", writer.size),
    ]


def test_close_writes_what_is_buffered_and_may_be_called_twice(packs: PackDirectory, writer: PackWriter) -> None:
    append(writer, 1)
    writer.close()
    writer.close()
    assert contents(packs, 7) == [chunk(1)[0]]


def test_a_closed_writer_says_what_it_had_synced(writer: PackWriter) -> None:
    append(writer, 1)
    synced = writer.sync()
    append(writer, 2)
    writer.close()
    assert writer.sync() == synced


def test_threads_append_and_sync_at_the_same_time(packs: PackDirectory, writer: PackWriter) -> None:
    def work(first: int) -> list[Location]:
        places = []
        for number in range(first, first + 50):
            places.append(append(writer, number, 5000))
            if number % 20 == 0:
                assert writer.sync() >= places[-1].offset
        return places

    with ThreadPoolExecutor(4) as pool:
        places = [place for group in pool.map(work, range(0, 400, 50)) for place in group]
    writer.sync()
    assert len(contents(packs, 7)) == 400
    with packs.open_reader(7) as fd:
        for number, place in enumerate(places):
            assert read_payload(fd, place, chunk(number, 5000)[0]) == chunk(number, 5000)[1]


def test_another_process_writes_through_a_passed_descriptor(packs: PackDirectory) -> None:
    fd = packs.create(3)
    code = (
        "import sys; from tvfs.packs.pack_writer import PackWriter\n"
        "writer = PackWriter(int(sys.argv[1]), 3, bytes(range(16)))\n"
        "print(writer.append(bytes(32), 5, 0, b'hello').offset, writer.sync()); writer.close()"
    )
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code, str(fd)],
            pass_fds=[fd],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        )
    finally:
        os.close(fd)
    offset, length = map(int, answer.stdout.split())
    assert packs.size(3) == length
    with packs.open_reader(3) as reader:
        assert bytes(read_payload(reader, Location(3, offset, 5, 5, 0), ChunkId(bytes(32)))) == b"hello"
