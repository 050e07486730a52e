"""The plugins keep their contracts: nothing here but the suites, told how each plugin is made."""

from __future__ import annotations

from collections.abc import Mapping

from tv_example import fifo, lines, lzma_codec, sha3

from tvfs.plugin_api import Chunker, Codec, EvictionPolicy, HashFunction
from tvfs.testing.chunking_contract import ChunkingContract
from tvfs.testing.compression_contract import CompressionContract
from tvfs.testing.eviction_contract import EvictionContract
from tvfs.testing.hash_contract import HashContract

PAYLOAD = (
    "fd377a585a000000ff12d9410200210110000000a8708e86e001f300135d002a184a66cc73d5"
    "23636f2f74a38cc0fcb500000000000127f40300000020b8fd76a8000afc020000000000595a"
)
"""What `lzma` once wrote; it must be readable for ever."""


class TestSha3(HashContract):
    golden = {  # noqa: RUF012
        b"": "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a",
        b"abc": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
    }

    def make_hash(self) -> HashFunction:
        return sha3.make({})


class TestLzma(CompressionContract):
    golden = {PAYLOAD: b"TaskVault " * 50}  # noqa: RUF012

    def make_codec(self) -> Codec:
        return lzma_codec.make({})


class TestLines(ChunkingContract):
    golden = [65642, 65712, 65549, 65805, 65975, 65563, 65650] + [65536] * 24 + [64392]

    def make_chunker(self) -> Chunker:
        return lines.make({})

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return lines.make(parameters)


class TestFifo(EvictionContract):
    def make_policy(self) -> EvictionPolicy:
        return fifo.make({})
