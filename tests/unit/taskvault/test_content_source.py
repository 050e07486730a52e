from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from taskvault.content_source import PackedChunks, RowReader
from taskvault.errors import Refused
from taskvault.protocol import messages as m
from tvfs.chunks.store import ChunkDamaged, ChunkMissing
from tvfs.digest import ChunkId
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_writer import PackWriter

UUID = bytes(16)
PACKS_IN_ONE_ANSWER = 16


class Owner:
    """Answers as the owner does, from packs with one chunk each."""

    def __init__(self, path: Path, count: int) -> None:
        self.packs = PackDirectory(path, UUID)
        self.locations: dict[bytes, m.ChunkLocation] = {}
        self.wrong: dict[bytes, int] = {}
        """How often to say a wrong place."""
        self.checked: list[bytes] = []
        self.asked = 0
        self.frame_rows = 1000
        for number in range(count):
            chunk_id = number.to_bytes(32, "big")
            writer = PackWriter(self.packs.create(number), number, UUID)
            at = writer.append(ChunkId(chunk_id), 5, 0, b"%05d" % number)
            writer.close()
            self.locations[chunk_id] = m.ChunkLocation(chunk_id, number, at.offset, 5, 5, 0)

    def call_with_descriptors(self, request: m.Locate) -> tuple[m.Located, list[int]]:
        self.asked += 1
        located: list[m.ChunkLocation] = []
        later: list[bytes] = []
        missing: list[bytes] = []
        for chunk_id in request.chunk_ids:
            at = self.locations.get(chunk_id)
            if at is None:
                missing.append(chunk_id)
            elif len(located) == PACKS_IN_ONE_ANSWER:
                later.append(chunk_id)
            elif self.wrong.get(chunk_id, 0):
                self.wrong[chunk_id] -= 1
                located.append(m.ChunkLocation(chunk_id, at.pack, at.offset + 1, 5, 5, 0))
            else:
                located.append(at)
        packs = [at.pack for at in located]
        descriptors = [os.open(self.packs.path / f"{number:016x}.pack", os.O_RDONLY) for number in packs]
        return m.Located(located, packs, later, missing), descriptors

    def call(self, request: Any) -> Any:
        if isinstance(request, m.CheckChunks):
            self.checked += request.chunk_ids
            return m.Missing(request.chunk_ids)
        if len(request.keys) > self.frame_rows:
            raise Refused("FrameTooLarge", "too long")
        return m.Rows([key for _, key in request.keys])


def ids(*numbers: int) -> list[ChunkId]:
    return [ChunkId(number.to_bytes(32, "big")) for number in numbers]


def test_chunks_of_many_packs_come_in_the_order_asked_for_and_descriptors_do_not_pile_up(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 100)
    chunks = PackedChunks(owner, {})  # type: ignore[arg-type]
    before = len(os.listdir("/proc/self/fd"))
    wanted = [*range(99, -1, -1), 5, 5]
    assert chunks(ids(*wanted)) == [b"%05d" % number for number in wanted]
    assert owner.asked == 7
    assert len(os.listdir("/proc/self/fd")) - before <= 64
    chunks.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_chunk_that_has_moved_is_asked_for_again(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 3)
    owner.wrong = {ids(1)[0]: 2}
    chunks = PackedChunks(owner, {})  # type: ignore[arg-type]
    assert chunks(ids(0, 1, 2)) == [b"00000", b"00001", b"00002"]
    assert owner.checked == []
    chunks.close()


def test_a_chunk_that_cannot_be_read_is_reported_and_never_made_up(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 3)
    owner.wrong = {ids(1)[0]: 1000}
    chunks = PackedChunks(owner, {})  # type: ignore[arg-type]
    with pytest.raises(ChunkDamaged):
        chunks(ids(0, 1, 2))
    assert owner.checked == ids(1)
    with pytest.raises(ChunkMissing):
        chunks(ids(0, 7))
    chunks.close()


@pytest.mark.parametrize("frame_rows", [1000, 100, 1])
def test_rows_that_do_not_fit_into_one_frame_are_asked_for_in_parts(tmp_path: Path, frame_rows: int) -> None:
    owner = Owner(tmp_path, 0)
    owner.frame_rows = frame_rows
    keys = [("tree", b"%d" % number) for number in range(300)]
    assert RowReader(owner)(keys) == [key for _, key in keys]  # type: ignore[arg-type]


def test_a_row_that_fits_into_no_frame_is_an_error(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    owner.frame_rows = 0
    with pytest.raises(Refused):
        RowReader(owner)([("tree", b"x")])  # type: ignore[arg-type]
