from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskvault.ingest_port import split
from taskvault.protocol.framing import MAX_FRAME_BYTES, encode
from taskvault.protocol.messages import Commit
from tvfs.ingest.commit import BlobRecord, ChunkRecord, IngestCommit, RowRecord

hashes = st.binary(min_size=32, max_size=32)
commits = st.builds(
    IngestCommit,
    chunks=st.lists(st.builds(ChunkRecord, hashes, *[st.integers(0, 2**31)] * 5), max_size=20),
    blobs=st.lists(st.builds(BlobRecord, st.just("blake3"), hashes, st.binary(max_size=100)), max_size=20),
    rows=st.lists(
        st.builds(RowRecord, st.sampled_from(["page", "tree", "treepage"]), hashes, st.binary(max_size=100)),
        max_size=20,
    ),
    uses=st.lists(hashes, max_size=60),
)


@given(commits, st.integers(100, 5000))
def test_the_parts_of_a_commit_say_the_same_as_the_whole(commit: IngestCommit, most_bytes: int) -> None:
    parts = list(split(commit, most_bytes))
    assert [chunk for part in parts for chunk in part.chunks] == commit.chunks
    assert [blob for part in parts for blob in part.blobs] == commit.blobs
    assert [use for part in parts for use in part.uses] == commit.uses
    rows = [row for part in parts for row in part.rows]
    for family in ("page", "tree", "treepage"):
        assert [row for row in rows if row.family == family] == [row for row in commit.rows if row.family == family]


@given(commits, st.integers(100, 5000))
def test_no_part_refers_to_what_comes_after_it(commit: IngestCommit, most_bytes: int) -> None:
    order = {"uses": 0, "chunks": 1, "page": 2, "blob": 3, "treepage": 4, "tree": 5}
    parts = list(split(commit, most_bytes))
    if len(parts) == 1:
        return  # one commit is checked as a whole
    latest = 0
    for part in parts:
        kinds = ["uses"] * bool(part.uses) + ["chunks"] * bool(part.chunks) + ["blob"] * bool(part.blobs)
        kinds += [row.family for row in part.rows]
        ranks = [order[kind] for kind in kinds]
        assert not ranks or min(ranks) >= latest
        latest = max([latest, *ranks])


@given(commits, st.integers(300, 5000))
def test_every_part_is_about_as_short_as_asked(commit: IngestCommit, most_bytes: int) -> None:
    for part in split(commit, most_bytes):
        assert len(encode(Commit(part))) <= most_bytes + 200


def test_a_commit_of_a_hundred_thousand_chunks_fits_into_frames() -> None:
    chunks = [ChunkRecord(number.to_bytes(32, "big"), 2**40, 2**40, 2**24, 2**24, 255) for number in range(200_000)]
    uses = [number.to_bytes(32, "big") for number in range(600_000)]
    parts = list(split(IngestCommit(chunks=chunks, uses=uses)))
    assert len(parts) > 2
    assert all(len(encode(Commit(part))) <= MAX_FRAME_BYTES for part in parts)


def test_a_short_commit_is_sent_as_it_is() -> None:
    commit = IngestCommit(uses=[bytes(32)])
    assert next(iter(split(commit))) is commit
