"""The built-in hash functions keep the contract."""

from __future__ import annotations

from tvplugins.hash import blake3, sha256

from tvfs.plugin_api import HashFunction
from tvfs.testing.hash_contract import HashContract, refuses_unknown_parameters


class TestBlake3(HashContract):
    golden = {  # noqa: RUF012
        b"": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        b"abc": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        b"abc" * 1000: "5d392719c4f44790536b56909c3499d92a856154b8e8a6a2cba4662d3b473990",
    }

    def make_hash(self) -> HashFunction:
        return blake3.make({})


class TestSha256(HashContract):
    golden = {  # noqa: RUF012
        b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        b"abc" * 1000: "328de8f1895f8bb09f6e6b4c2012ef2b2a6f067cd002794b750aa040a6f6d8bd",
    }

    def make_hash(self) -> HashFunction:
        return sha256.make({})


def test_unknown_parameters_are_refused_by_name() -> None:
    refuses_unknown_parameters(blake3.make)
    refuses_unknown_parameters(sha256.make)
