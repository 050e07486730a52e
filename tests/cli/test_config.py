"""`tv config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Vault, conforms

pytestmark = pytest.mark.kernel


@pytest.fixture
def home(tmp_path: Path) -> Vault:
    """A vault that was not made yet: settings need none."""
    (tmp_path / "home").mkdir()
    return Vault(tmp_path / "home")


def test_every_setting_is_shown_with_where_it_comes_from(home: Vault) -> None:
    file = home.home / "config.toml"
    file.write_text('# ours\n[vault]\ncapacity_bytes = "2G"\n\n[log]\n# quiet\nlevel = "error"\n')
    home.variables["TASKVAULT_LOG_LEVEL"] = "debug"
    shown = {(each["section"], each["key"]): each for each in home.json("config", "show")}
    size, level, hash_ = shown["vault", "capacity_bytes"], shown["log", "level"], shown["vault", "hash"]
    assert (size["value"], size["source"], size["file"], size["line"]) == (2 << 30, "file", str(file), 3)
    assert (level["value"], level["source"], level["variable"]) == ("debug", "environment", "TASKVAULT_LOG_LEVEL")
    assert (level["default"], level["file"], level["line"]) == ("info", None, None)
    assert (hash_["value"], hash_["source"]) == ("blake3", "default")
    said = home.tv("config", "show").out
    assert f"2147483648 (2.0 GiB)  ({file}:3)" in said
    assert '"debug"  (TASKVAULT_LOG_LEVEL)' in said


def test_everything_that_is_wrong_is_said_at_once_each_with_its_line(home: Vault) -> None:
    file = home.home / "config.toml"
    file.write_text(
        '[valut]\nx = 1\n[vault]\ncapacity_bytes = "lots"\nhahs = "blake3"\n[mount\nenabled = 3\n[log]\nlevel = \n'
    )
    home.variables["TASKVAULT_MEMORY_BLOCK_CACHE_BYTES"] = "1"
    said = home.tv("config", "check", exit_code=1)
    assert said.err == ""
    found = said.out.splitlines()
    assert [line.split(" ")[0] for line in found[:5]] == [f"{file}:{number}:" for number in (1, 4, 5, 6, 9)]
    assert "[valut] is no section; there are" in found[0]
    assert "did you mean 'vault'?" in found[0]
    assert "write a number of bytes, or a size like 50G" in found[1]
    assert "did you mean 'hash'?" in found[2]
    assert "is not TOML" in found[3]
    assert "is not TOML" in found[4]
    assert "environment variable TASKVAULT_MEMORY_BLOCK_CACHE_BYTES" in found[5]
    assert len(found) == 6


def test_a_configuration_in_order_is_said_to_be_so(home: Vault) -> None:
    assert "everything has its default" in home.tv("config", "check").out
    (home.home / "config.toml").write_text("[log]\nmax_bytes = 100000\n")
    assert "Nothing is wrong" in home.tv("config", "check").out


def test_a_file_that_is_named_is_checked_without_this_machines_variables(home: Vault, tmp_path: Path) -> None:
    home.variables["TASKVAULT_LOG_LEVEL"] = "loud"
    (tmp_path / "new.toml").write_text('[log]\nlevel = "info"\n')
    home.tv("config", "check", "new.toml", cwd=tmp_path)
    home.tv("config", "check", exit_code=1)
    assert "No such file" in home.tv("config", "check", "nothing.toml", exit_code=5, cwd=tmp_path).err


def test_errors_are_values_too(home: Vault, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('[mount]\npath = "relative"\n')
    said = home.tv("config", "check", "bad.toml", "--json", cwd=tmp_path, exit_code=1)
    conforms("config check", json.loads(said.out))
    (error,) = json.loads(said.out)["errors"]
    assert (error["source"], error["line"], error["key"]) == (str(tmp_path / "bad.toml"), 2, "mount.path")
    assert error["message"] == f"{tmp_path / 'bad.toml'}:2: mount.path is 'relative'; it must be an absolute path."


def test_settings_that_cannot_be_read_are_one_sentence(home: Vault) -> None:
    (home.home / "config.toml").write_text("[vault]\ncapacity = 3\n")
    said = home.tv("config", "show", exit_code=5)
    assert said.err.startswith("tv: ")
    assert "vault.capacity is no setting" in said.err
    (home.home / "config.toml").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in home.tv("config", "check", exit_code=1).out
