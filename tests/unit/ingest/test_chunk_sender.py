from __future__ import annotations

import random

from tvplugins.compression.none import make as none

from tests.unit.ingest.bench import SETTINGS
from tvfs.chunks.encoding import encode_chunk, encode_chunks
from tvfs.digest import ChunkId
from tvfs.ingest.chunk_sender import ChunkSender
from tvfs.plugin_api import BatchCodec, Codec
from tvfs.testing.memory_port import MemoryPort

CHUNKS: list[bytes | bytearray | memoryview] = [
    b"",
    b"x",
    b"abc" * 1000,
    random.Random(1).randbytes(5000),
    bytes(70_000),
    memoryview(b"view" * 100),
]


class OneByOne:
    """The codec without its batch call."""

    def __init__(self, inner: Codec) -> None:
        self.name, self.codec_id = inner.name, inner.codec_id
        self.compress, self.decompress = inner.compress, inner.decompress


def test_a_batch_is_encoded_as_its_chunks_are_one_by_one() -> None:
    assert isinstance(SETTINGS.codec, BatchCodec)
    assert not isinstance(OneByOne(SETTINGS.codec), BatchCodec)
    for codec in (SETTINGS.codec, OneByOne(SETTINGS.codec), none({})):
        assert encode_chunks(CHUNKS, codec) == [encode_chunk(chunk, codec) for chunk in CHUNKS]
        assert encode_chunks([], codec) == []


def test_what_the_vault_has_is_used_and_not_sent_again() -> None:
    port = MemoryPort([SETTINGS.codec])
    chunk = ChunkId(SETTINGS.hash_function.digest(b"chunk"))
    for _ in range(2):
        sender = ChunkSender(port, SETTINGS)
        assert sender.is_new(chunk)
        assert not sender.is_new(chunk)
        sender.send([(chunk, b"chunk")])
        sender.commit()
        sender.close()
    assert [([r.chunk_id for r in commit.chunks], commit.uses) for commit in port.commits] == [
        ([chunk], []),
        ([], [chunk]),
    ]
    port.close()


def test_what_was_seen_long_ago_is_asked_for_again_and_not_kept_in_memory() -> None:
    port = MemoryPort([SETTINGS.codec])
    sender = ChunkSender(port, SETTINGS)
    chunks = [(ChunkId(SETTINGS.hash_function.digest(bytes([n]))), bytes([n])) for n in range(3)]
    for chunk_id, raw in chunks:
        assert sender.is_new(chunk_id)
        sender.send([(chunk_id, raw)])
        sender.commit()
    assert [sender.is_new(chunk_id) for chunk_id, _ in chunks] == [True, True, False]
    sender.send(chunks)
    sender.commit()
    assert port.commits[-1].chunks == []
    sender.close()
    port.close()
