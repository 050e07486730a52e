"""Where should small chunks live: as values in RocksDB, or in packs with an index row?

Writes the same chunks both ways, then reads them all back in random order with a warm page cache:

  (a) values of a column family in raw mode: WAL on, one batch per 256 chunks, then `flush_wal(True)`;
  (b) records in a pack, 24-byte rows under 32-byte keys in the same kind of column family: per 256 chunks the pack is
      synced, then one batch, then `flush_wal(True)`.

Prints for each round the throughput of both, and at the end medians and bytes on disk.  A round writes (a) and (b) in
turn, so that a slow moment of the machine meets both.

    python benchmarks/small_chunks.py --directory /var/tmp/small --chunks 20000 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from rocksdict import AccessType, Options, Rdict, WriteBatch

from tvfs.chunks.chunk_row import ChunkRow, decode_chunk_row, encode_chunk_row
from tvfs.digest import ChunkId
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_reader import read_payload
from tvfs.packs.pack_writer import PackWriter

BATCH = 256
Chunks = list[tuple[ChunkId, bytes]]


@dataclass(frozen=True)
class Figures:
    write_s: float
    read_s: float
    disk_bytes: int
    written_bytes: int
    """What the process handed to the disk, background work included."""


class Rocks:
    """One column family, no compression: the payloads are compressed already."""

    def __init__(self, path: Path) -> None:
        self._db = Rdict(
            str(path), _options(), column_families={"chunk": _options()}, access_type=AccessType.read_write()
        )
        self.chunk = self._db.get_column_family("chunk")
        self._handle = self._db.get_column_family_handle("chunk")

    def write(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in rows:
            batch.put(key, value, self._handle)
        self._db.write(batch)
        self._db.flush_wal(True)

    def get(self, key: bytes) -> bytes:
        value = self.chunk.get(key)
        assert isinstance(value, bytes)
        return value

    def close(self) -> None:
        self.chunk.flush()
        del self._handle
        self.chunk.close()
        self._db.close()


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(16 << 20)
    return options


def measure_values(path: Path, chunks: Chunks, order: list[int]) -> Figures:
    """(a)"""
    rocks = Rocks(path)
    before = _written_bytes()

    def write() -> None:
        for part in _parts(chunks):
            rocks.write(part)

    write_s = _timed(write)
    rocks.chunk.flush()

    def read() -> None:
        for number in order:
            assert len(rocks.get(chunks[number][0])) == len(chunks[number][1])

    read()
    read_s = _timed(read)
    rocks.close()
    return Figures(write_s, read_s, _disk_bytes(path), _written_bytes() - before)


def measure_pack(path: Path, chunks: Chunks, order: list[int]) -> Figures:
    """(b)"""
    (path / "packs").mkdir(parents=True)
    packs = PackDirectory(path / "packs", bytes(16))
    rocks = Rocks(path / "index")
    before = _written_bytes()
    writer = PackWriter(packs.create(1), 1, bytes(16))

    def write() -> None:
        for part in _parts(chunks):
            places = [writer.append(key, len(payload), 1, payload) for key, payload in part]
            writer.sync()
            rocks.write([(key, encode_chunk_row(ChunkRow(at))) for (key, _), at in zip(part, places, strict=True)])

    write_s = _timed(write)
    rocks.chunk.flush()

    def read() -> None:
        for number in order:
            key, payload = chunks[number]
            at = decode_chunk_row(rocks.get(key)).location
            with packs.open_reader(at.pack) as fd:
                assert len(read_payload(fd, at, key)) == len(payload)

    read()
    read_s = _timed(read)
    writer.close()
    packs.close()
    rocks.close()
    return Figures(write_s, read_s, _disk_bytes(path), _written_bytes() - before)


def _parts(chunks: Chunks) -> Iterator[Chunks]:
    return (chunks[start : start + BATCH] for start in range(0, len(chunks), BATCH))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _disk_bytes(path: Path) -> int:
    return sum(entry.stat().st_blocks * 512 for entry in path.rglob("*") if entry.is_file())


def _written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, required=True, help="on the disk to measure; emptied and removed")
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--mean-bytes", type=int, default=1500, help="mean payload; lengths vary by half of it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    choose = random.Random(arguments.seed)
    half = arguments.mean_bytes // 2
    payloads = [choose.randbytes(arguments.mean_bytes + choose.randint(-half, half)) for _ in range(arguments.chunks)]
    chunks = [(ChunkId(blake3(payload).digest()), payload) for payload in payloads]
    order = choose.sample(range(len(chunks)), len(chunks))
    mebibytes = sum(map(len, payloads)) / (1 << 20)
    ways = {"values in RocksDB": measure_values, "pack and index": measure_pack}
    figures: dict[str, list[Figures]] = {name: [] for name in ways}
    print(f"{len(chunks)} chunks, {mebibytes:.1f} MiB, batches of {BATCH}, seed {arguments.seed}")
    for _ in range(arguments.rounds):
        for name, measure in ways.items():
            path = arguments.directory / "round"
            os.makedirs(path)
            figures[name].append(measure(path / "store", chunks, order))
            shutil.rmtree(path)
    for name, rounds in figures.items():
        writes = sorted(mebibytes / each.write_s for each in rounds)
        reads = sorted(each.read_s / len(chunks) * 1e6 for each in rounds)
        disk = statistics.median(each.disk_bytes for each in rounds) / (1 << 20)
        written = statistics.median(each.written_bytes for each in rounds) / (1 << 20)
        print(
            f"{name:18} write {statistics.median(writes):6.1f} MiB/s ({writes[0]:.1f}-{writes[-1]:.1f})"
            f"   random read warm {statistics.median(reads):5.1f} us ({reads[0]:.1f}-{reads[-1]:.1f})"
            f"   on disk {disk:.1f} MiB   written {written:.1f} MiB"
        )
    shutil.rmtree(arguments.directory)


if __name__ == "__main__":
    main()
