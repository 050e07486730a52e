from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_reader import (
    neighbouring,
    payload_of,
    read_payload,
    read_payload_nowait,
    read_run,
    record_bytes,
)
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import PackDamaged

UUID = bytes(range(16))
IDS = [ChunkId(bytes([number]) * 32) for number in range(5)]
PAYLOADS = [bytes([number]) * (100 + number) for number in range(5)]


@pytest.fixture
def pack(packs: PackDirectory) -> Iterator[tuple[int, list[Location]]]:
    """A descriptor of a pack of five records, and where they are."""
    fd = packs.create(1)
    writer = PackWriter(os.dup(fd), 1, UUID)
    places = [writer.append(IDS[n], 1000, 1, PAYLOADS[n]) for n in range(5)]
    writer.close()
    yield fd, places
    os.close(fd)


def test_a_payload_is_read_by_its_location(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    for number in range(5):
        assert read_payload(fd, places[number], IDS[number]) == PAYLOADS[number]
        assert read_payload_nowait(fd, places[number], IDS[number]) == PAYLOADS[number]


def test_a_run_is_one_read(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    records = read_run(fd, places[1:4])
    assert [payload_of(records[n], places[n + 1], IDS[n + 1]) for n in range(3)] == PAYLOADS[1:4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offset": 41}, "no record header"),
        ({"stored_bytes": 99}, "codec or lengths"),
        ({"raw_bytes": 999}, "codec or lengths"),
        ({"codec": 2}, "codec or lengths"),
        ({"offset": 1 << 40}, "ends before"),
        ({"stored_bytes": 100_000}, "ends before"),
    ],
)
def test_a_record_that_is_not_as_the_index_says_is_damage(
    pack: tuple[int, list[Location]], change: dict[str, int], reason: str
) -> None:
    fd, places = pack
    with pytest.raises(PackDamaged, match=reason) as raised:
        read_payload(fd, replace(places[0], **change), IDS[0])
    assert raised.value.pack == 1


def test_the_record_of_another_chunk_is_damage(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    with pytest.raises(PackDamaged, match="another chunk's"):
        read_payload(fd, places[0], IDS[1])
    with pytest.raises(PackDamaged, match="another chunk's"):
        read_payload_nowait(fd, places[0], IDS[1])


def test_a_truncated_record_would_have_to_wait_and_is_then_damage(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    os.ftruncate(fd, places[4].offset + 60)
    with pytest.raises(BlockingIOError):
        read_payload_nowait(fd, places[4], IDS[4])
    with pytest.raises(PackDamaged, match="ends before"):
        read_payload(fd, places[4], IDS[4])
    records = read_run(fd, places)
    assert payload_of(records[3], places[3], IDS[3]) == PAYLOADS[3]
    with pytest.raises(PackDamaged, match="ends before"):
        payload_of(records[4], places[4], IDS[4])


def test_what_is_not_cached_is_not_waited_for(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        read_payload_nowait(fd, places[0], IDS[0])
    except BlockingIOError:
        assert read_payload(fd, places[0], IDS[0]) == PAYLOADS[0]
        assert read_payload_nowait(fd, places[0], IDS[0]) == PAYLOADS[0]
    else:  # a filesystem in memory, where everything is cached
        assert os.statvfs(fd).f_bsize > 0


places = st.builds(Location, st.integers(1, 3), st.integers(40, 100_000), st.integers(0, 5000), st.just(1), st.just(0))


@given(wanted=st.lists(places, max_size=30), gap_bytes=st.integers(0, 50_000), max_bytes=st.integers(1, 60_000))
def test_runs_hold_everything_once_and_keep_their_limits(
    wanted: list[Location], gap_bytes: int, max_bytes: int
) -> None:
    items = [(ChunkId(number.to_bytes(32, "big")), at) for number, at in enumerate(wanted)]
    runs = list(neighbouring(items, gap_bytes=gap_bytes, max_bytes=max_bytes))
    assert sorted(chunk_id for run in runs for chunk_id, _ in run) == [chunk_id for chunk_id, _ in items]
    for run in runs:
        offsets = [at.offset for _, at in run]
        assert offsets == sorted(offsets)
        assert len({at.pack for _, at in run}) == 1
        if len(run) > 1:
            assert run[-1][1].offset + record_bytes(run[-1][1]) - run[0][1].offset <= max_bytes
        for (_, one), (_, two) in pairwise(run):
            assert two.offset - one.offset - record_bytes(one) <= gap_bytes


def test_neighbours_are_read_together() -> None:
    near = [(IDS[n], Location(1, 40 + n * 1000, 900, 900, 0)) for n in range(5)]
    far = (IDS[0], Location(1, 10_000_000, 10, 10, 0))
    other = (IDS[1], Location(2, 40, 10, 10, 0))
    assert list(neighbouring([other, far, *reversed(near)])) == [near, [far], [other]]
