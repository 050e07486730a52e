from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Vault


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "file").write_bytes(bytes(range(256)) * 4000)
    return tmp_path


def test_what_nothing_wants_any_more_goes_and_the_counts_are_right(vault: Vault, project: Path) -> None:
    vault.tv("cache", "save", "gc-key", "output", cwd=project)
    before = vault.json("stats")["collected_objects"]
    vault.tv("cache", "rm", "gc-key")
    done = vault.json("gc", "--check")
    assert done["findings"] == []
    # On a slow machine the background may have been first.
    assert vault.json("stats")["collected_objects"] >= max(before + 1, before + done["objects"])
    said = vault.tv("gc", "--check").out
    assert "freed" in said
    assert "every count is the number of references" in said


def test_so_much_is_evicted_as_is_asked_for_and_no_pinned_entry(vault: Vault, project: Path) -> None:
    vault.tv("cache", "save", "gc-pinned", "output", "--pin", cwd=project)
    (project / "output" / "file").write_bytes(b"other")
    vault.tv("cache", "save", "gc-other", "output", cwd=project)
    assert vault.json("gc", "--evict", "1T")["evicted"] >= 1
    vault.tv("cache", "show", "gc-pinned")
    vault.tv("cache", "show", "gc-other", exit_code=1)
    vault.tv("cache", "rm", "gc-pinned")


@pytest.mark.parametrize("size", ["much", "-1", "1Q", "0x10"])
def test_a_size_that_is_none_is_refused_with_a_sentence(vault: Vault, size: str) -> None:
    assert "is no size; write a number and a unit" in vault.tv("gc", f"--evict={size}", exit_code=2).err


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    assert "tv up" in Vault(tmp_path / "home").tv("gc", exit_code=3).err
