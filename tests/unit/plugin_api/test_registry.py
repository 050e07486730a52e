"""Discovery: what is installed, what is loaded and when, and how each way to be wrong is said."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installed_plugins import ENTRY_POINTS, install
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import PluginAmbiguous, PluginBroken, PluginIncompatible, PluginRegistry, PluginUnknown
from tvfs.plugin_api.registry import KINDS

SENTENCE = re.compile(r"[A-Z].*[;:].*\.$")


def test_plugins_of_other_distributions_are_found_beside_the_built_in_ones(site: Path) -> None:
    install(site)
    registry = PluginRegistry()
    assert {"blake2", "blake3", "sha256"} <= set(registry.names("hash"))
    assert {"deflate", "zstd", "brotli", "lz4", "none"} <= set(registry.names("compression"))
    assert registry.hash_function("blake2").digest(b"") == registry.hash_function("blake2").hasher().digest()
    codec = registry.codec("deflate")
    assert codec.decompress(codec.compress(b"a" * 1000), 1000) == b"a" * 1000
    assert registry.chunker("lines", {"piece": 10}).cut(b"a" * 25) == [10, 10, 5]
    assert registry.eviction("fifo").name == "fifo"
    assert [(origin.distribution, origin.version) for origin in registry.origins("hash", "blake2")] == [
        ("tv-example", "1.2")
    ]


def test_nothing_is_imported_until_it_is_asked_for(site: Path) -> None:
    module = install(site)
    registry = PluginRegistry()
    for kind in KINDS:
        registry.names(kind)
        registry.origins(kind, "blake2")
    assert module not in sys.modules
    registry.codec("deflate")
    assert module in sys.modules


def test_the_built_in_plugins_are_not_imported_with_the_registry() -> None:
    asked = (
        "import sys; from tvfs.plugin_api import PluginRegistry as R; R().names('compression'); R().chunker('fixed')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", f"{asked}; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "tvplugins.chunking.fixed" in loaded
    assert not {"zstandard", "brotli", "lz4", "blake3", "pyfastcdc"} & set(loaded)


def test_codecs_are_imported_only_as_far_as_the_number_asks_for(site: Path) -> None:
    module = install(site)
    codecs = PluginRegistry().codecs(likely=["none"])
    assert codecs[0].name == "none"
    assert codecs[1].name == "zstd"
    assert module not in sys.modules
    assert codecs[200].name == "deflate"
    assert module in sys.modules
    assert codecs.get(201) is None
    assert {0, 1, 2, 3, 200} <= set(codecs)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_lists_the_known_ones_and_says_what_to_do(kind: str) -> None:
    registry = PluginRegistry()
    with pytest.raises(PluginUnknown, match="pip install") as caught:
        registry.make(kind, "no-such")
    assert all(name in str(caught.value) for name in ["no-such", *registry.names(kind)])
    assert SENTENCE.match(str(caught.value))


@pytest.mark.parametrize("name", ["blake2", "blake3"])
def test_two_distributions_with_one_name_are_both_named(site: Path, name: str) -> None:
    install(site, "tv-example")
    install(site, "tv-other", points={"hash": {name: "make_hash"}})
    with pytest.raises(PluginAmbiguous, match="pip uninstall") as caught:
        PluginRegistry().hash_function(name)
    assert "tv-other 1.2" in str(caught.value)
    assert ("tv-example 1.2" if name == "blake2" else "taskvault") in str(caught.value)
    assert SENTENCE.match(str(caught.value))


BROKEN = {
    "does not import": ("raise RuntimeError('no library here')", "no library here"),
    "imports what is not there": ("import no_such_library", "no_such_library"),
    "ends the process": ("raise SystemExit(3)", "SystemExit"),
    "is not there": ("del make_hash, make_codec, make_chunker, make_policy, make_tracer", "AttributeError"),
    "is not callable": ("make_hash = make_codec = make_chunker = make_policy = make_tracer = 7", "not callable"),
    "raises": (
        "def make_hash(p): raise OSError('no file')\nmake_codec = make_chunker = make_policy = make_tracer = make_hash",
        "no file",
    ),
    "takes nothing": (
        "def make_hash(): pass\nmake_codec = make_chunker = make_policy = make_tracer = make_hash",
        "TypeError",
    ),
    "returns nothing": (
        "def make_hash(p): pass\nmake_codec = make_chunker = make_policy = make_tracer = make_hash",
        "no method",
    ),
    "has another name": (
        "def make_hash(p): return Hash('x')\ndef make_codec(p): return Codec('x')\n"
        "def make_chunker(p): return Chunker('x')\ndef make_policy(p): return Policy('x')\n"
        "def make_tracer(p): return Tracer('x')",
        "its name is 'x'",
    ),
    "raises what cannot say what it is": (
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError\n"
        "def make_hash(p): raise Mute\nmake_codec = make_chunker = make_policy = make_tracer = make_hash",
        "Mute",
    ),
    "refuses its parameters without a word": (
        "class Mute(ValueError):\n    def __str__(self): raise RuntimeError\n"
        "def make_hash(p): raise Mute\nmake_codec = make_chunker = make_policy = make_tracer = make_hash",
        "refuses its parameters",
    ),
    "raises what codecs raise": (
        "def make_hash(p): raise CodecFailed('odd')\nmake_codec = make_chunker = make_policy = make_tracer = make_hash",
        "odd",
    ),
    "raises an error of ours": (
        "from tvfs.errors import TaskVaultError\n"
        "def make_hash(p): raise TaskVaultError('The vault is full; give it room.')\n"
        "make_codec = make_chunker = make_policy = make_tracer = make_hash",
        "it raised TaskVaultError",
    ),
    "has a name that cannot be compared": (
        "class Odd:\n    def __ne__(self, other): raise RuntimeError\n    __repr__ = __ne__\n"
        "def make_hash(p): return Hash(Odd())\ndef make_codec(p): return Codec(Odd())\n"
        "def make_chunker(p): return Chunker(Odd())\ndef make_policy(p): return Policy(Odd())\n"
        "def make_tracer(p): return Tracer(Odd())",
        "its name is some Odd",
    ),
    "refuses its parameters": (
        "def make_hash(p): raise ValueError('too many cooks.')\n"
        "make_codec = make_chunker = make_policy = make_tracer = make_hash",
        r"refuses its parameters \(too many cooks\)",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("source", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_with_its_distribution_and_reason(
    site: Path, kind: str, source: str, said: str
) -> None:
    install(site, source=source)
    registry = PluginRegistry()
    name = next(iter(ENTRY_POINTS[kind]))
    with pytest.raises(PluginBroken, match=said) as caught:
        registry.make(kind, name)
    assert f"The {kind} plugin {name!r} of tv-example 1.2 does not work" in str(caught.value)
    assert SENTENCE.match(str(caught.value))


CONTRACT_BREAKERS = {
    "a hash of 16 bytes": ("hash", "Hash.digest = lambda self, content: bytes(16)", "16 bytes instead of 32"),
    "a hash that is text": ("hash", "Hash.digest = lambda self, content: 'ab'", "str instead of bytes"),
    "no hasher": ("hash", "Hash.hasher = lambda self: 1", "without update"),
    "another hasher": ("hash", "Hash.hasher = lambda self: hashlib.sha256()", "hash of the pieces"),
    "a missing method": ("compression", "del Codec.decompress", "no method decompress"),
    "a number that is text": ("compression", "make_codec = lambda p: Codec(codec_id='1')", "codec_id is '1'"),
    "a number beyond a byte": ("compression", "make_codec = lambda p: Codec(codec_id=256)", "codec_id is 256"),
    "a number of ours": ("compression", "make_codec = lambda p: Codec(codec_id=5)", "numbers below 128"),
    "a payload of text": ("compression", "Codec.compress = lambda self, chunk: 'ab'", "str instead of bytes"),
    "a codec that forgets": ("compression", "Codec.decompress = lambda self, p, n: bytes(n)", "did not come back"),
    "a codec that cannot read": (
        "compression",
        "def fail(self, p, n): raise CodecFailed('no')\nCodec.decompress = fail",
        "cannot read what it compressed",
    ),
    "a chunk that is too long": ("chunking", "make_chunker = lambda p: Chunker(piece=17 << 20)", "max_chunk_bytes"),
    "lengths that do not add up": ("chunking", "Chunker.cut = lambda self, c: [1]", "1 bytes instead of"),
    "parameters that are no numbers": (
        "chunking",
        "def make_chunker(p):\n    c = Chunker()\n    c.parameters = {'a': 1.5}\n    return c",
        "parameters are",
    ),
    "a rank that is text": ("eviction", "Policy.rank = lambda self, e, a: 'first'", "str instead of a number"),
    "a rank that is none": ("eviction", "Policy.rank = lambda self, e, a: float('nan')", "finite"),
}


@pytest.mark.parametrize(("kind", "source", "said"), CONTRACT_BREAKERS.values(), ids=CONTRACT_BREAKERS)
def test_what_breaks_its_contract_at_once_is_refused_when_it_is_made(
    site: Path, kind: str, source: str, said: str
) -> None:
    install(site, source=source)
    name = next(iter(ENTRY_POINTS[kind]))
    with pytest.raises(PluginBroken, match=said):
        PluginRegistry().make(kind, name)


@pytest.mark.parametrize("on", ["make_codec.api_version = {}", "Codec.api_version = {}"])
def test_a_plugin_for_another_version_of_its_contract_is_refused_with_both_versions(site: Path, on: str) -> None:
    install(site, source=on.format(1))
    assert PluginRegistry().codec("deflate").codec_id == 200
    sys.modules.pop("tv_example_plugins")
    install(site, source=on.format(2))
    with pytest.raises(PluginIncompatible, match=r"version 2 .* version 1: `pip install --upgrade taskvault`"):
        PluginRegistry().codec("deflate")
    sys.modules.pop("tv_example_plugins")
    install(site, source=on.format(0))
    with pytest.raises(PluginIncompatible, match=r"`pip install --upgrade tv-example`"):
        PluginRegistry().codec("deflate")


def test_two_codecs_of_one_number_are_both_named_when_the_number_is_needed(site: Path) -> None:
    install(site)
    install(
        site,
        "tv-other",
        source="make_codec = lambda p: Codec('press')",
        points={"compression": {"press": "make_codec"}},
    )
    codecs = PluginRegistry().codecs()
    assert codecs[1].name == "zstd"
    with pytest.raises(PluginAmbiguous, match="has the number 200") as caught:
        codecs[200]
    assert all(word in str(caught.value) for word in ("'deflate' of tv-example", "'press' of tv-other", "uninstall"))


def test_a_broken_codec_does_not_hide_the_others(site: Path) -> None:
    install(site)
    install(site, "tv-other", source="raise RuntimeError", points={"compression": {"press": "make_codec"}})
    codecs = PluginRegistry().codecs()
    assert codecs[200].name == "deflate"
    assert codecs.get(201) is None
    assert list(codecs.broken) == ["press"]  # type: ignore[attr-defined]
    assert all(isinstance(error, TaskVaultError) for error in codecs.broken.values())  # type: ignore[attr-defined]


def test_the_metadata_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = __import__("importlib.metadata", fromlist=["entry_points"]).entry_points
    monkeypatch.setattr("tvfs.plugin_api.registry.entry_points", lambda **k: asked.append(k) or real(**k))
    registry = PluginRegistry()
    for kind in KINDS:
        registry.names(kind)
    assert len(asked) == 1
