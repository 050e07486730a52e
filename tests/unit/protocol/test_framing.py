from __future__ import annotations

import struct
import typing
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvault.protocol import messages as m
from taskvault.protocol.framing import (
    HEADER,
    MAX_FRAME_BYTES,
    FrameTooLarge,
    ProtocolError,
    decode_reply,
    decode_request,
    encode,
    payload_length,
)
from tvfs.ingest.commit import BlobRecord, ChunkRecord, IngestCommit, RowRecord

REQUESTS = list(typing.get_args(m.Request))
REPLIES = list(typing.get_args(m.Reply))

hashes = st.binary(min_size=32, max_size=32)
commits = st.builds(
    IngestCommit,
    chunks=st.lists(
        st.builds(ChunkRecord, hashes, *[st.integers(0, 2**31) for _ in range(5)]),
        max_size=3,
    ),
    blobs=st.lists(st.builds(BlobRecord, st.just("blake3"), hashes, st.binary()), max_size=3),
    rows=st.lists(st.builds(RowRecord, st.sampled_from(["page", "tree"]), st.binary(), st.binary()), max_size=3),
    uses=st.lists(hashes, max_size=3),
)


@given(commits)
def test_a_request_arrives_as_it_was_sent(commit: IngestCommit) -> None:
    frame = encode(m.Commit(commit))
    assert payload_length(frame[: HEADER.size]) == len(frame) - HEADER.size
    assert decode_request(frame[HEADER.size :]) == m.Commit(commit)


@given(st.builds(m.Failed, st.text(), st.text()))
def test_a_reply_arrives_as_it_was_sent(reply: m.Failed) -> None:
    assert decode_reply(encode(reply)[HEADER.size :]) == reply


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_a_protocol_error_and_nothing_else(payload: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with suppress(ProtocolError):
            decode(payload)


def test_deeply_nested_input_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode_request(b"\x81\xa4type" + b"\x91" * 100_000)


@pytest.mark.parametrize("lie", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_a_message_that_announces_billions_of_items_costs_no_memory(lie: bytes) -> None:
    payload = msgspec.msgpack.encode({"type": "FindMissing", "chunk_ids": 0})[:-1] + lie
    with pytest.raises(ProtocolError):
        decode_request(payload)


def test_a_frame_that_is_too_long_is_refused_by_both_sides() -> None:
    with pytest.raises(FrameTooLarge, match="longer than"):
        encode(m.Rows([bytes(MAX_FRAME_BYTES)]))
    with pytest.raises(FrameTooLarge):
        payload_length(struct.pack(">I", MAX_FRAME_BYTES + 1))


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="empty"):
        payload_length(bytes(4))


def test_the_longest_frame_is_allowed() -> None:
    assert payload_length(struct.pack(">I", MAX_FRAME_BYTES)) == MAX_FRAME_BYTES


def test_a_field_that_a_newer_side_added_is_ignored() -> None:
    payload = msgspec.msgpack.encode({"type": "GetStatus", "since": "tomorrow"})
    assert decode_request(payload) == m.GetStatus()


def test_every_request_that_is_answered_has_an_answer_and_every_answer_is_a_reply() -> None:
    assert set(m.ANSWERS) == set(REQUESTS) - m.UNANSWERED
    assert set(m.ANSWERS.values()) | {m.Failed} == set(REPLIES)
