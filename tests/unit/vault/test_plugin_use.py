"""A vault and the plugins that its data needs: missing, changed, broken ones, and what is known of them then."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.installed_plugins import install
from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.catalog.rocks import RocksCatalog
from tvfs.chunks.store import ChunkDamaged
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import PluginAmbiguous, PluginBroken, PluginMisbehaved, PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.plugin_use import PluginChanged, PluginMissing
from tvfs.vault.superblock import KEY, VaultSettings, encode_superblock
from tvfs.vault.vault import Vault, open_vault

TEXT = b"a line of text that compresses well\n" * 2000
SETTINGS = VaultSettings(hash="blake2", chunking="lines", compression="deflate", capacity_bytes=256 << 20)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that is searched for distributions; what was imported from it is forgotten."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    yield site
    forget(site)


@pytest.fixture
def foreign(site: Path, tmp_path: Path) -> Path:
    """A vault whose plugins all come from another distribution."""
    install(site)
    create_vault(tmp_path / "home", settings=SETTINGS, registry=PluginRegistry())
    return tmp_path / "home"


def forget(site: Path) -> None:
    for name in list(sys.modules):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
            del sys.modules[name]


def change(site: Path, *, uninstalled: bool = False, **how: object) -> None:
    """Install the distribution again, otherwise, as the next start of a process would find it."""
    forget(site)
    shutil.rmtree(site)
    site.mkdir()
    if not uninstalled:
        install(site, **how)  # type: ignore[arg-type]


async def put(home: Path, registry: PluginRegistry | None = None) -> ChunkId:
    async with open_vault(home, registry or PluginRegistry()) as vault:
        chunk_id = await vault.chunks.put(TEXT)
        await vault.chunks.flush()
        return chunk_id


async def get(home: Path, chunk_id: ChunkId) -> bytes:
    async with open_vault(home, PluginRegistry()) as vault:
        return await vault.chunks.get(chunk_id)


def rows(home: Path) -> list[tuple[Family, bytes, bytes]]:
    catalog: Catalog = RocksCatalog(home / "meta")
    try:
        return [(family, key, value) for family in Family for key, value in catalog.scan(family)]
    finally:
        catalog.close()


def files(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (home / "packs").iterdir()}


def bytes_of(home: Path) -> dict[str, bytes]:
    """Every byte of a vault; `lock` says who looked last."""
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "lock"}


async def test_a_vault_of_foreign_plugins_works_and_knows_what_it_needs(foreign: Path) -> None:
    chunk_id = await put(foreign)
    assert await get(foreign, chunk_id) == TEXT
    async with open_vault(foreign, PluginRegistry()) as vault:
        assert {kind: list(names) for kind, names in vault.plugins.needed().items()} == {
            "hash": ["blake2"],
            "chunking": ["lines"],
            "compression": ["deflate"],
        }
        assert "number 200" in vault.plugins.needed()["compression"]["deflate"]


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        ({}, "hash plugin 'blake2'"),
        ({"hash": {"blake2": "make_hash"}}, "chunking plugin 'lines'"),
        ({"hash": {"blake2": "make_hash"}, "chunking": {"lines": "make_chunker"}}, "compression plugin 'deflate'"),
    ],
    ids=["hash", "chunking", "compression"],
)
async def test_a_vault_whose_data_needs_a_missing_plugin_is_not_opened_and_changes_nothing(
    site: Path, foreign: Path, kept: dict[str, dict[str, str]], missing: str
) -> None:
    chunk_id = await put(foreign)
    before = rows(foreign), files(foreign)
    every_byte = bytes_of(foreign)
    change(site, points=kept)
    with pytest.raises(PluginMissing, match=f"needs the {missing}, which is not installed") as caught:
        await get(foreign, chunk_id)
    assert bytes_of(foreign) == every_byte
    assert "`pip install tv-example` (it was tv-example 1.2)" in str(caught.value)
    assert "nothing was changed" in str(caught.value)
    assert (rows(foreign), files(foreign)) == before
    change(site)
    assert await get(foreign, chunk_id) == TEXT


async def test_a_codec_that_only_old_chunks_need_is_needed_too(site: Path, tmp_path: Path) -> None:
    install(site)
    home = tmp_path / "home"
    superblock = create_vault(
        home, settings=VaultSettings(compression="deflate", capacity_bytes=256 << 20), registry=PluginRegistry()
    )
    chunk_id = await put(home)
    catalog: Catalog = RocksCatalog(home / "meta")
    batch = Batch()
    batch.put(Family.SYS, KEY, encode_superblock(msgspec.structs.replace(superblock, compression="zstd")))
    catalog.write(batch)
    catalog.close()
    assert await get(home, chunk_id) == TEXT
    change(site, uninstalled=True)
    with pytest.raises(PluginMissing, match=r"compression plugin 'deflate'.* tv-example 1\.2"):
        await get(home, chunk_id)


async def test_a_number_comes_into_use_in_the_batch_that_first_stores_a_chunk_with_it(home: Path) -> None:
    registry = PluginRegistry()
    async with open_vault(home, registry) as vault:
        assert vault.plugins.needed()["compression"] == {"zstd": "new chunks are compressed with it"}
        await vault.chunks.put(bytes(range(256)))
        await vault.chunks.flush()
        assert not in_use(vault)  # it was not worth compressing
        await vault.chunks.put(TEXT)
        assert not in_use(vault)
        await vault.chunks.flush()
        assert in_use(vault) == [b"codec:\x01"]
        assert "number 1" in vault.plugins.needed()["compression"]["zstd"]


def in_use(vault: Vault) -> list[bytes]:
    return [key for key, _ in vault.catalog.scan(Family.SYS, b"codec:", b"codec;")]


CHANGED = {
    "hash": ("make_hash = lambda p: Hash(change=lambda d: d[::-1])\nHash.hasher = lambda s: Reversed()", "blake2"),
    "codec": (
        "import bz2\nCodec.compress = lambda s, c: bz2.compress(c)\n"
        "def unpack(s, p, n):\n    try:\n        return bz2.decompress(p)\n"
        "    except OSError as exc:\n        raise CodecFailed(str(exc))\nCodec.decompress = unpack",
        "deflate",
    ),
    "number": ("make_codec = lambda p: Codec(codec_id=201)", "deflate"),
}
REVERSED = """
class Reversed:
    def __init__(self): self.inner = hashlib.blake2s()
    def update(self, content, /): self.inner.update(content)
    def digest(self): return self.inner.digest()[::-1]
"""


@pytest.mark.parametrize(("source", "name"), CHANGED.values(), ids=CHANGED)
async def test_a_plugin_that_does_something_else_than_it_did_is_not_served_with(
    site: Path, foreign: Path, source: str, name: str
) -> None:
    chunk_id = await put(foreign)
    before = rows(foreign), files(foreign)
    change(site, version="2.0", source=REVERSED + source)
    with pytest.raises(PluginChanged, match=f"'{name}' does not do any more .* `pip install 'tv-example==1.2'`"):
        await put(foreign)
    assert (rows(foreign), files(foreign)) == before
    change(site)
    assert await get(foreign, chunk_id) == TEXT


async def test_a_newer_version_that_does_the_same_is_served_with_and_noted(site: Path, foreign: Path) -> None:
    chunk_id = await put(foreign)
    change(site, version="2.0")
    assert await get(foreign, chunk_id) == TEXT
    change(site, uninstalled=True)
    with pytest.raises(PluginMissing, match=r"tv-example 2\.0"):
        await get(foreign, chunk_id)


async def test_a_broken_codec_that_the_data_does_not_need_is_no_obstacle(site: Path, home: Path) -> None:
    install(site, source="raise RuntimeError('broken')")
    assert await get(home, await put(home)) == TEXT


async def test_a_broken_plugin_that_the_data_needs_is_an_obstacle(site: Path, foreign: Path) -> None:
    chunk_id = await put(foreign)
    change(site, source="raise RuntimeError('broken')")
    with pytest.raises(PluginBroken, match="'blake2' of tv-example"):
        await get(foreign, chunk_id)
    change(site)
    assert await get(foreign, chunk_id) == TEXT


async def test_no_vault_is_made_or_opened_while_two_codecs_have_its_number(
    site: Path, foreign: Path, tmp_path: Path
) -> None:
    chunk_id = await put(foreign)
    install(
        site,
        "tv-other",
        source="make_codec = lambda p: Codec('press')",
        points={"compression": {"press": "make_codec"}},
    )
    with pytest.raises(PluginAmbiguous, match="has the number 200"):
        await get(foreign, chunk_id)
    with pytest.raises(PluginAmbiguous, match="has the number 200"):
        create_vault(tmp_path / "new", settings=SETTINGS, registry=PluginRegistry())
    assert not (tmp_path / "new").exists()


def spoil(where: str, name: str, value: object) -> None:
    setattr(getattr(sys.modules["tv_example_plugins"], where), name, value)


async def test_a_codec_that_goes_wrong_while_the_vault_is_open_condemns_no_chunk(foreign: Path) -> None:
    chunk_id = await put(foreign)
    async with open_vault(foreign, PluginRegistry()) as vault:
        good = sys.modules["tv_example_plugins"].Codec.decompress
        spoil("Codec", "decompress", lambda self, payload, raw_bytes: bytes(raw_bytes))
        with pytest.raises(PluginChanged, match="'deflate'"):
            await vault.chunks.get(chunk_id)
        spoil("Codec", "decompress", lambda self, payload, raw_bytes: b"short")
        with pytest.raises(PluginMisbehaved, match="'deflate'"):
            await vault.chunks.get(chunk_id)
        spoil("Codec", "decompress", good)
        assert await vault.chunks.get(chunk_id) == TEXT
        assert list(vault.audit.latest(5)) == []


async def test_a_hash_that_goes_wrong_while_the_vault_is_open_condemns_no_chunk(foreign: Path) -> None:
    chunk_id = await put(foreign)
    async with open_vault(foreign, PluginRegistry()) as vault:
        good = sys.modules["tv_example_plugins"].Hash.digest
        spoil("Hash", "digest", lambda self, content: bytes(32))
        with pytest.raises(PluginChanged, match="'blake2'"):
            await vault.chunks.get(chunk_id)
        spoil("Hash", "digest", good)
        assert await vault.chunks.get(chunk_id) == TEXT


@pytest.mark.parametrize("place", ["payload", "whole record"])
async def test_damage_on_the_disk_is_still_told_from_a_wrong_plugin(foreign: Path, place: str) -> None:
    chunk_id = await put(foreign)
    (pack,) = (foreign / "packs").iterdir()
    with pack.open("r+b") as stream:
        stream.seek(40 + 56 + 20 if place == "payload" else 40)
        stream.write(b"\xff\xff\xff")
    async with open_vault(foreign, PluginRegistry()) as vault:
        with pytest.raises(ChunkDamaged):
            await vault.chunks.get(chunk_id)
        assert [record.action for record in vault.audit.latest(1)] == ["quarantine"]


async def test_damage_on_the_disk_is_damage_also_when_the_plugin_is_wrong_too(foreign: Path) -> None:
    chunk_id = await put(foreign)
    (pack,) = (foreign / "packs").iterdir()
    with pack.open("r+b") as stream:
        stream.seek(40 + 56 + 20)
        stream.write(b"\xff\xff\xff")
    async with open_vault(foreign, PluginRegistry()) as vault:
        spoil("Codec", "decompress", lambda self, payload, raw_bytes: bytes(raw_bytes))
        with pytest.raises(ChunkDamaged):
            await vault.chunks.get(chunk_id)


async def test_a_chunk_that_was_written_wrong_is_damaged_and_heals(foreign: Path) -> None:
    async with open_vault(foreign, PluginRegistry()) as vault:
        good = sys.modules["tv_example_plugins"].Codec.compress
        spoil("Codec", "compress", lambda self, chunk: good(self, bytes(len(chunk))))
        chunk_id = await vault.chunks.put(TEXT)
        await vault.chunks.flush()
        spoil("Codec", "compress", good)
        with pytest.raises(ChunkDamaged):
            await vault.chunks.get(chunk_id)
        assert await vault.chunks.put(TEXT) == chunk_id
        await vault.chunks.flush()
        assert await vault.chunks.get(chunk_id) == TEXT


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("Codec", "compress", lambda self, chunk: "text"),
        ("Codec", "compress", lambda self, chunk: 1 / 0),
        ("Hash", "digest", lambda self, content: b"short"),
    ],
    ids=["a payload of text", "a codec that raises", "a short hash"],
)
async def test_what_a_plugin_does_wrong_while_storing_stores_nothing(
    foreign: Path, where: str, name: str, value: object
) -> None:
    chunk_id = await put(foreign)
    async with open_vault(foreign, PluginRegistry()) as vault:
        chunks = list(vault.chunks.scan())
        spoil(where, name, value)
        with pytest.raises(TaskVaultError, match="broke its contract"):
            await vault.chunks.put(TEXT + b"more")
        assert list(vault.chunks.scan()) == chunks == [chunk_id]
