"""What happens at the boundary when a plugin misbehaves later than on its first day."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.installed_plugins import install
from tvfs.plugin_api import BatchCodec, CodecFailed, PluginHung, PluginMisbehaved, PluginRegistry

CONTENT = b"x" * 1000


def spoil(module: str, where: str, name: str, value: Any) -> None:
    setattr(getattr(sys.modules[module], where), name, value)


def raises(error: BaseException) -> Any:
    def function(*_: object) -> None:
        raise error

    return function


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_plugin_raises_is_its_fault_and_named(site: Path, error: BaseException) -> None:
    module = install(site)
    registry = PluginRegistry()
    function, codec, chunker = registry.hash_function("blake2"), registry.codec("deflate"), registry.chunker("lines")
    policy = registry.eviction("fifo")
    for where, name in (("Hash", "digest"), ("Codec", "compress"), ("Chunker", "cut"), ("Policy", "rank")):
        spoil(module, where, name, raises(error))
    calls: dict[str, Any] = {
        "hash plugin 'blake2'": lambda: function.digest(CONTENT),
        "compression plugin 'deflate'": lambda: codec.compress(CONTENT),
        "chunking plugin 'lines'": lambda: chunker.cut(CONTENT),
        "eviction plugin 'fifo'": lambda: policy.rank(None, 0.0),  # type: ignore[arg-type]
    }
    for said, call in calls.items():
        with pytest.raises(PluginMisbehaved, match=f"The {said} broke its contract: it raised {type(error).__name__}"):
            call()


def test_a_hash_may_not_say_that_a_payload_is_damaged(site: Path) -> None:
    module = install(site)
    function = PluginRegistry().hash_function("blake2")
    spoil(module, "Hash", "digest", raises(CodecFailed("what?")))
    with pytest.raises(PluginMisbehaved, match="it raised CodecFailed"):
        function.digest(CONTENT)


def test_a_child_that_a_plugin_forks_and_lets_come_back_does_not_live_on(site: Path, tmp_path: Path) -> None:
    module = install(site)
    codec = PluginRegistry().codec("deflate")
    children: list[int] = []

    def fork(*_: object) -> bytes:
        children.append(os.fork())
        return b""

    spoil(module, "Codec", "compress", fork)
    assert codec.compress(CONTENT) == b""
    assert os.waitid(os.P_PID, children[0], os.WEXITED) is not None


@pytest.mark.parametrize(
    "lengths", [[999], [1001], [1000, 0], [-1, 1001], [500.0, 500.0], (1000,), None, [True] * 1000]
)
def test_chunks_that_do_not_cover_the_content_are_refused(site: Path, lengths: object) -> None:
    module = install(site)
    chunker = PluginRegistry().chunker("lines")
    spoil(module, "Chunker", "cut", lambda *_: lengths)
    with pytest.raises(PluginMisbehaved, match="'lines'"):
        chunker.cut(CONTENT)


def test_a_chunk_longer_than_was_promised_is_refused(site: Path) -> None:
    module = install(site)
    chunker = PluginRegistry().chunker("lines", {"piece": 300})
    spoil(module, "Chunker", "cut", lambda *_: [301, 699])
    with pytest.raises(PluginMisbehaved, match="301"):
        chunker.cut(CONTENT)


def test_hashes_of_another_length_are_refused(site: Path) -> None:
    module = install(site)
    function = PluginRegistry().hash_function("blake2")
    hasher = function.hasher()
    hasher.update(CONTENT)
    assert hasher.digest() == function.digest(CONTENT)
    spoil(module, "Hash", "digest", lambda *_: bytes(31))
    with pytest.raises(PluginMisbehaved, match="31 bytes instead of 32"):
        function.digest(CONTENT)


@pytest.mark.parametrize("returned", [b"x" * 999, b"", "x" * 1000, None, bytearray(1000)])
def test_a_chunk_of_another_length_is_refused(site: Path, returned: object) -> None:
    module = install(site)
    codec = PluginRegistry().codec("deflate")
    spoil(module, "Codec", "decompress", lambda *_: returned)
    with pytest.raises(PluginMisbehaved, match="'deflate'"):
        codec.decompress(b"", 1000)


def test_a_codec_may_say_that_a_payload_is_damaged(site: Path) -> None:
    install(site)
    with pytest.raises(CodecFailed):
        PluginRegistry().codec("deflate").decompress(b"not deflated", 1000)


def test_many_payloads_must_be_as_many_as_the_chunks(site: Path) -> None:
    module = install(site, source="Codec.compress_many = lambda self, chunks: [self.compress(c) for c in chunks]")
    codec = PluginRegistry().codec("deflate")
    assert isinstance(codec, BatchCodec)
    assert codec.compress_many([CONTENT, b""]) == [codec.compress(CONTENT), codec.compress(b"")]
    for returned in ([], [b""] * 3, (b"", b""), [b"", None]):
        spoil(module, "Codec", "compress_many", lambda *_, returned=returned: returned)
        with pytest.raises(PluginMisbehaved, match="compress_many"):
            codec.compress_many([CONTENT, b""])


def test_a_codec_without_batches_does_not_pretend_to_have_them(site: Path) -> None:
    install(site)
    assert not isinstance(PluginRegistry().codec("deflate"), BatchCodec)


def test_a_call_that_hangs_is_given_up_and_further_ones_are_refused_until_it_comes_back(site: Path) -> None:
    module = install(site)
    codec = PluginRegistry(deadline_s=0.05).codec("deflate")
    good = sys.modules[module].Codec.compress
    let_go = threading.Event()
    spoil(module, "Codec", "compress", lambda *_: let_go.wait())
    with pytest.raises(PluginHung, match=r"did not come back within 0\.1 s"):
        codec.compress(CONTENT)
    spoil(module, "Codec", "compress", good)
    with pytest.raises(PluginHung, match="an earlier call"):
        codec.compress(CONTENT)
    hung = [thread for thread in threading.enumerate() if thread.name == "plugin-call" and thread.daemon]
    let_go.set()
    while True:  # the deadline of the test is the timeout of the suite
        try:
            assert codec.decompress(codec.compress(CONTENT), 1000) == CONTENT
        except PluginHung:
            continue
        break
    assert hung


def test_a_plugin_that_hangs_while_it_is_loaded_is_broken(site: Path) -> None:
    from tvfs.plugin_api import PluginBroken

    install(site, "tv-hangs", source="import threading\nthreading.Event().wait()")
    with pytest.raises(PluginBroken, match="did not come back within"):
        PluginRegistry(deadline_s=0.05).codec("deflate")


def test_many_threads_may_call_at_once(site: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    install(site)
    codec = PluginRegistry().codec("deflate")
    with ThreadPoolExecutor(8) as pool:
        back = pool.map(lambda n: codec.decompress(codec.compress(bytes(n)), n), range(200))
        assert [len(chunk) for chunk in back] == list(range(200))
