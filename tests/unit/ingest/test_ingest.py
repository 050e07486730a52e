from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Sequence
from functools import partial

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from tvplugins.chunking.fixed import make as fixed

from tests.unit.ingest.bench import SETTINGS, Bench
from tvfs.catalog.catalog import Family
from tvfs.content.attributes import OwnAttributes
from tvfs.content.reference import EMPTY, Content, ContentKind
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import REGULAR, IndexEntry
from tvfs.digest import ChunkId, Digest
from tvfs.ingest import ingest as ingest_module
from tvfs.ingest.ingest import SINGLE_CHUNK_BYTES, WINDOW_BYTES, WORKER_NICENESS, Ingest, IngestLost
from tvfs.ingest.port import NullPort
from tvfs.testing.memory_port import MemoryPort


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def add(bench: Bench, content: bytes, hint: int | None = None, read_at_most: int = 1 << 30) -> Content:
    file = io.BytesIO(content)
    with bench.ingest() as ingest:
        found = ingest.add_stream(lambda n: file.read(min(n, read_at_most)), len(content) if hint is None else hint)
        ingest.finish()
    return found


def read(bench: Bench, content: Content) -> bytes:
    whole = bytearray(content.size)
    for offset, part in bench.source.read(content):
        whole[offset : offset + len(part)] = part
    return bytes(whole)


length = st.integers(1, 700_000)
pieces = st.lists(st.tuples(length, st.sampled_from([None, 0, 1])) | st.just((WINDOW_BYTES, None)), max_size=5)


@settings(max_examples=40)
@given(pieces, st.integers(0, 1 << 23), st.sampled_from([1 << 30, 70_000]))
def test_a_content_comes_back_and_does_not_depend_on_how_it_was_read(
    parts: list[tuple[int, int | None]], hint: int, read_at_most: int
) -> None:
    bench = Bench()
    whole = b"".join(bytes(size) if seed is None else noise(size, seed) for size, seed in parts)
    content = add(bench, whole, hint, read_at_most)
    assert read(bench, content) == whole
    assert content.size == len(whole)
    if whole:
        assert content.hash == blake3(whole).digest()
    again = Bench()
    assert add(again, whole) == content
    assert again.port.ids() == bench.port.ids()
    for family in (Family.BLOB, Family.PAGE):
        assert list(again.port.catalog.scan(family)) == list(bench.port.catalog.scan(family))
    bench.port.close()
    again.port.close()


def test_only_the_workers_step_back_for_who_waits() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with Bench(threads=2).ingest() as ingest:
        theirs = ingest.result(ingest.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert theirs == max(own, WORKER_NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_the_empty_content_stores_nothing(bench: Bench) -> None:
    assert add(bench, b"") == EMPTY
    with bench.ingest() as ingest:
        assert ingest.digest(EMPTY) == Digest("blake3", blake3(b"").digest(), 0)
    assert not bench.port.commits


@pytest.mark.parametrize("size", [1, 1000, SINGLE_CHUNK_BYTES])
def test_a_short_content_is_one_chunk_without_a_manifest(bench: Bench, size: int) -> None:
    content = add(bench, noise(size))
    assert content == Content(ContentKind.CHUNK, blake3(noise(size)).digest(), size)
    assert bench.port.ids() == {ChunkId(content.hash)}
    assert not list(bench.port.catalog.scan(Family.BLOB))


def test_a_longer_content_that_is_one_chunk_has_no_manifest_either() -> None:
    bench = Bench(chunker=fixed({"chunk_bytes": 1 << 20}))
    assert add(bench, noise(300_000)).kind is ContentKind.CHUNK
    bench.port.close()


def test_chunks_longer_than_half_a_window_are_cut_where_the_chunker_says() -> None:
    bench = Bench(chunker=fixed({"chunk_bytes": 3 << 20}))
    content = add(bench, noise(10 << 20))
    assert [piece.raw_bytes for piece in bench.source.pieces(content)] == [3 << 20, 3 << 20, 3 << 20, 1 << 20]
    bench.port.close()


def test_a_long_content_is_cut_where_the_chunker_cuts_the_whole_of_it(bench: Bench) -> None:
    content = add(bench, noise(13 << 20))
    lengths = [piece.raw_bytes for piece in bench.source.pieces(content)]
    assert lengths == SETTINGS.chunker.cut(noise(13 << 20))


def test_equal_content_is_stored_once(bench: Bench) -> None:
    first = add(bench, noise(5_000_000))
    stored = bench.port.stored_bytes()
    assert add(bench, noise(5_000_000)) == first
    changed = add(bench, noise(2_000_000) + b"inserted" + noise(5_000_000)[2_000_000:])
    assert changed != first
    assert bench.port.stored_bytes() - stored < 600_000


def test_within_one_ingest_equal_chunks_are_sent_once(bench: Bench) -> None:
    with bench.ingest() as ingest:
        for _ in range(10):
            ingest.add_bytes(noise(50_000))
        ingest.finish()
    assert sum(len(commit.chunks) for commit in bench.port.commits) == 1


def test_what_does_not_compress_is_stored_raw_and_what_does_is_not(bench: Bench) -> None:
    add(bench, noise(50_000))
    add(bench, b"the same again " * 3000)
    codecs = {record.raw_bytes: record.codec for commit in bench.port.commits for record in commit.chunks}
    assert codecs == {50_000: 0, 45_000: 1}


def test_zeros_are_holes_and_cost_nothing(bench: Bench) -> None:
    content = add(bench, bytes(50 << 20))
    assert bench.port.ids() == set()
    assert sum(piece.raw_bytes for piece in bench.source.pieces(content)) == 50 << 20
    assert len(bench.source.pieces(content)) == 1


def test_a_full_pack_is_followed_by_another() -> None:
    bench = Bench(pack_max_bytes=1 << 20)
    content = add(bench, noise(5 << 20))
    packs = {record.pack for commit in bench.port.commits for record in commit.chunks}
    assert len(packs) >= 5
    assert read(bench, content) == noise(5 << 20)
    bench.port.close()


def test_a_chunk_longer_than_a_pack_gets_a_pack_of_its_own() -> None:
    bench = Bench(pack_max_bytes=10_000)
    with bench.ingest() as ingest:
        for seed in range(3):
            ingest.add_bytes(noise(50_000, seed))
        ingest.finish()
    assert [record.pack for commit in bench.port.commits for record in commit.chunks] == [1, 2, 3]
    bench.port.close()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_many_contents_from_several_workers_are_all_there(threads: int) -> None:
    bench = Bench(threads=threads)
    contents = [noise(100_000 + 40_000 * (n % 17), n % 25) for n in range(150)]
    with bench.ingest() as ingest:
        futures = [ingest.run(partial(ingest.add_bytes, one)) for one in contents]
        found = [ingest.result(future) for future in futures]
        found += [ingest.add_bytes(noise(1000, n)) for n in range(2000)]
        ingest.finish()
    contents += [noise(1000, n) for n in range(2000)]
    assert [read(bench, one) for one in found] == contents
    assert len({record.chunk_id for c in bench.port.commits for record in c.chunks}) == len(bench.port.ids())
    bench.port.close()


def test_a_failure_in_a_worker_stops_the_others_and_is_raised_to_the_caller() -> None:
    bench = Bench(threads=3)
    windows: list[int] = []

    def endless(length: int) -> bytes:
        windows.append(length)
        return noise(length) if len(windows) < 3 else bytes(length)

    def fail() -> None:
        raise ZeroDivisionError("the worker's own")

    with bench.ingest() as ingest:
        ingest.run(partial(ingest.add_stream, endless))
        ingest.run(fail)
        with pytest.raises(ZeroDivisionError):
            ingest.finish()
        with pytest.raises(ZeroDivisionError):
            ingest.run(fail)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("ingest-")]
    bench.port.close()


def test_leaving_early_stops_the_workers_and_commits_nothing() -> None:
    bench = Bench(threads=2)
    with bench.ingest() as ingest:
        for seed in range(2000):
            ingest.add_bytes(noise(1000, seed))
    assert not bench.port.commits
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("ingest-")]
    bench.port.close()


class ForgetfulPort(MemoryPort):
    """Says that it has a chunk, and loses it."""

    def find_missing(self, chunk_ids: Sequence[ChunkId]) -> set[ChunkId]:
        missing = super().find_missing(chunk_ids)
        for chunk_id in set(chunk_ids) - missing:
            self.lose(chunk_id)
        return missing


def test_a_chunk_that_was_promised_and_lost_is_an_error_and_the_next_time_it_is_sent() -> None:
    bench = Bench()
    bench.port = ForgetfulPort([SETTINGS.codec])
    add(bench, noise(1000))
    with pytest.raises(IngestLost) as caught:
        add(bench, noise(1000))
    assert caught.value.missing == [blake3(noise(1000)).digest()]
    add(bench, noise(1000))
    assert len(bench.port.ids()) == 1
    bench.port.close()


def test_a_long_ingest_commits_now_and_then_and_refers_to_what_was_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvfs.ingest.chunk_sender.COMMIT_BYTES", 1 << 20)
    bench = Bench()
    content = add(bench, noise(20 << 20))
    with_chunks = [commit for commit in bench.port.commits if commit.chunks]
    assert len(with_chunks) > 3
    assert [bool(commit.blobs) for commit in bench.port.commits].index(True) >= len(with_chunks)
    assert read(bench, content) == noise(20 << 20)
    bench.port.close()


def test_rows_go_after_all_chunks_in_commits_of_bounded_length(bench: Bench) -> None:
    with bench.ingest() as ingest:
        for number in range(3000):
            ingest.add_row(Family.TREE, number.to_bytes(32, "big"), bytes(1000))
        ingest.add_bytes(noise(10))
        ingest.finish()
    assert not bench.port.commits[0].rows
    assert sum(len(commit.rows) for commit in bench.port.commits) == 3000
    assert max(len(commit.rows) for commit in bench.port.commits) <= 1100


def test_a_paged_manifest_is_committed_pages_first(bench: Bench) -> None:
    whole = noise(120 << 20, 3)
    bench = Bench(chunker=fixed({"chunk_bytes": 64 << 10}))
    content = add(bench, whole)
    assert list(bench.port.catalog.scan(Family.PAGE))
    assert read(bench, content) == whole
    bench.port.close()


def test_of_a_tree_the_pages_are_committed_before_the_root_and_subdirectories_before_both(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "ROWS_IN_ONE_COMMIT", 1)
    builder = TreeBuilder(SETTINGS.hash_function)
    entries = [IndexEntry(b"%04d" % number, REGULAR, 0o644, 0, 0, 0) for number in range(600)]
    below = builder.build(OwnAttributes(0o755), entries)
    above = builder.build(OwnAttributes(0o755), entries, [(b"sub", below.directory)])
    with bench.ingest() as ingest:
        ingest.add_directory(below)
        ingest.add_directory(above)
        ingest.finish()
    order = [(row.family, row.key[:32]) for commit in bench.port.commits for row in commit.rows]
    first, second = below.directory.snapshot.index, above.directory.snapshot.index
    assert order == [("treepage", first)] * 3 + [("tree", first)] + [("treepage", second)] * 3 + [("tree", second)]


def test_without_a_vault_digests_are_the_same() -> None:
    whole = noise(3_000_000)
    with Ingest(NullPort(), SETTINGS) as ingest:
        file = io.BytesIO(whole)
        assert ingest.digest(ingest.add_stream(file.read)) == Digest("blake3", blake3(whole).digest(), len(whole))
        ingest.finish()
