from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tvfs.plugin_api import PluginBroken, PluginRegistry, PluginUnknown
from tvfs.vault.create import DirectoryNotEmpty, VaultExists, VaultMissing, VaultNotMade, create_vault
from tvfs.vault.layout import Layout
from tvfs.vault.superblock import SettingsInvalid, VaultSettings
from tvfs.vault.vault import open_vault

SETTINGS = VaultSettings(capacity_bytes=256 << 20)


async def test_a_new_vault_opens_with_what_it_was_made_with(tmp_path: Path, registry: PluginRegistry) -> None:
    settings = VaultSettings("sha256", "fixed", {}, "none", 1 << 30)
    made = create_vault(tmp_path / "a" / "b", settings=settings, registry=registry)
    async with open_vault(tmp_path / "a" / "b", registry) as vault:
        assert vault.superblock == made
        assert (vault.hash_function.name, vault.chunker.name, vault.codec.name) == ("sha256", "fixed", "none")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


async def test_what_the_catalog_holds_is_the_owners_even_if_a_group_is_let_through(
    home: Path, registry: PluginRegistry
) -> None:
    layout = Layout(home)
    assert layout.meta.stat().st_mode & 0o777 == 0o700
    broken = home / "meta.broken-1"
    broken.mkdir()
    for place in (layout.meta, broken):
        place.chmod(0o755)
    async with open_vault(home, registry):
        assert [place.stat().st_mode & 0o777 for place in (layout.meta, broken)] == [0o700] * 2


def test_a_vault_is_never_made_over_another(home: Path, registry: PluginRegistry) -> None:
    before = sorted(path.name for path in home.iterdir())
    with pytest.raises(VaultExists, match="tv up"):
        create_vault(home, settings=SETTINGS, registry=registry)
    assert sorted(path.name for path in home.iterdir()) == before


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path, registry: PluginRegistry) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "precious").write_text("x")
    with pytest.raises(DirectoryNotEmpty, match="'meta'"):
        create_vault(tmp_path, settings=SETTINGS, registry=registry)
    assert (tmp_path / "meta" / "precious").read_text() == "x"
    assert os.listdir(tmp_path) == ["meta"]


def test_a_configuration_may_be_there_first(tmp_path: Path, registry: PluginRegistry) -> None:
    (tmp_path / "config.toml").write_text("")
    create_vault(tmp_path, settings=SETTINGS, registry=registry)
    assert (tmp_path / "config.toml").read_text() == ""


@pytest.mark.parametrize("step", ["open", "mkdir", "fsync", "rename"])
async def test_an_interrupted_creation_is_no_vault_and_is_repeated(
    tmp_path: Path, registry: PluginRegistry, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    home = tmp_path / "home"

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if step == "open":
            patched.setattr("tvfs.vault.create.VaultLock", die)
        elif step == "mkdir":
            patched.setattr("tvfs.vault.create._write_superblock", die)
        else:
            patched.setattr(os, step, die)
        with pytest.raises(Killed):
            create_vault(home, settings=SETTINGS, registry=registry)
    with pytest.raises(VaultMissing, match="tv init"):
        async with open_vault(home, registry):
            pass
    create_vault(home, settings=SETTINGS, registry=registry)
    async with open_vault(home, registry) as vault:
        assert vault.superblock.capacity_bytes == SETTINGS.capacity_bytes
    assert not Layout(home).format_being_made.exists()


def test_settings_that_cannot_work_are_refused_before_anything_is_made(
    tmp_path: Path, registry: PluginRegistry
) -> None:
    home = tmp_path / "home"
    for settings, error in (
        (VaultSettings(capacity_bytes=1 << 20), SettingsInvalid),
        (VaultSettings(hash="md5"), PluginUnknown),
        (VaultSettings(compression="lzma"), PluginUnknown),
        (VaultSettings(compression_parameters={"nonsense": 1}), PluginBroken),
        (VaultSettings(chunking_parameters={"nonsense": 1}), PluginBroken),
    ):
        with pytest.raises(error):
            create_vault(home, settings=settings, registry=registry)
    assert not home.exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, registry: PluginRegistry) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultNotMade, match="choose a directory"):
        create_vault(tmp_path / "file" / "home", settings=SETTINGS, registry=registry)


async def test_a_directory_without_a_vault_is_not_opened(tmp_path: Path, registry: PluginRegistry) -> None:
    for home in (tmp_path, tmp_path / "absent"):
        with pytest.raises(VaultMissing, match="There is no vault"):
            async with open_vault(home, registry):
                pass
    assert os.listdir(tmp_path) == []


async def test_the_chunker_that_was_used_is_stored_with_all_its_parameters(
    tmp_path: Path, registry: PluginRegistry
) -> None:
    given = replace(SETTINGS, chunking_parameters={"seed": 7})
    superblock = create_vault(tmp_path / "home", settings=given, registry=registry)
    assert superblock.chunking.parameters == {
        "min_bytes": 32 << 10,
        "avg_bytes": 128 << 10,
        "max_bytes": 512 << 10,
        "seed": 7,
    }
    async with open_vault(tmp_path / "home", registry) as vault:
        assert vault.superblock == superblock
        assert vault.chunker.parameters == superblock.chunking.parameters
