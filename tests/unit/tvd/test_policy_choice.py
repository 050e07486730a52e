"""Which eviction policy a vault uses: where it is chosen, kept and refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tvd import config_file
from tvd.config import Config
from tvd.main import main


def policy(home: Path) -> str:
    return config_file.load(home, {}).eviction.policy


def test_without_a_choice_it_is_lru(tmp_path: Path) -> None:
    assert Config(home=tmp_path).eviction.policy == "lru"


def test_a_choice_is_kept_in_the_file_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[log]\nlevel = "debug"\n')
    config_file.keep_policy(tmp_path, "lfu")
    assert policy(tmp_path) == "lfu"
    assert config_file.load(tmp_path, {}).log.level == "debug"
    config_file.keep_policy(tmp_path, "lfu")
    with pytest.raises(config_file.ConfigInvalid, match='set policy = "ttl" in it'):
        config_file.keep_policy(tmp_path, "ttl")


def test_init_makes_a_vault_that_uses_the_policy(tmp_path: Path) -> None:
    assert main(["--home", str(tmp_path / "v"), "--init", "--eviction", "lfu"]) == 0
    assert policy(tmp_path / "v") == "lfu"
    assert main(["--home", str(tmp_path / "w"), "--init"]) == 0
    assert not (tmp_path / "w" / "config.toml").exists()


def test_an_unknown_policy_is_refused_with_those_there_are_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expect_log: Callable[[str], None]
) -> None:
    expect_log("stopped")
    assert main(["--home", str(tmp_path / "v"), "--init", "--eviction", "random"]) != 0
    assert "No eviction plugin is called 'random' (installed: lfu, lru, ttl" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "v")
