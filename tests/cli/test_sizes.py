"""`tv du` and `tv show`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Vault

pytestmark = pytest.mark.kernel

MIB = 1 << 20


def content(size: int) -> bytes:
    """Bytes that nothing else has and that do not get smaller."""
    return os.urandom(size)


def eventually(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Return what a look finds when it is as wanted: sealing happens in the background."""
    deadline = time.monotonic() + 30
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
    return found


@pytest.fixture
def sealed(vault: Vault) -> Callable[[Path], dict[str, Any]]:
    """Measure a path when nothing in it is staged any more."""

    def measure(path: Path) -> dict[str, Any]:
        found = eventually(lambda: vault.json("du", str(path))[0], lambda found: found["staged_bytes"] == 0)
        assert isinstance(found, dict)
        return found

    return measure


def test_a_directory_takes_what_its_files_take(vault: Vault, work: Path, sealed: Callable[..., dict[str, Any]]) -> None:
    (work / "sub").mkdir()
    (work / "one").write_bytes(content(MIB))
    (work / "sub" / "two").write_bytes(content(MIB))
    (work / "link").symlink_to("one")
    found = sealed(work)
    assert (found["files"], found["directories"], found["logical_bytes"]) == (2, 2, 2 * MIB)
    assert 2 * MIB <= found["stored_bytes"] < 2.1 * MIB
    assert found["exclusive_bytes"] == found["stored_bytes"]


def test_what_is_staged_is_stored_and_exclusive(vault: Vault, work: Path) -> None:
    with (work / "open").open("wb") as file:
        file.write(content(MIB))
        file.flush()
        os.fsync(file.fileno())
        (found,) = vault.json("du", str(work))
    assert found["staged_bytes"] >= MIB
    assert found["stored_bytes"] == found["exclusive_bytes"] == found["staged_bytes"]


def test_equal_content_counts_once_and_is_exclusive_only_to_what_holds_all_of_it(
    vault: Vault, work: Path, sealed: Callable[..., dict[str, Any]]
) -> None:
    same = content(MIB)
    for name in ("a", "b"):
        (work / name).mkdir()
        (work / name / "file").write_bytes(same)
    whole, part = sealed(work), sealed(work / "a")
    assert whole["logical_bytes"] == 2 * MIB
    assert whole["stored_bytes"] == whole["exclusive_bytes"] == part["stored_bytes"] < 1.1 * MIB
    assert part["exclusive_bytes"] == 0


def test_removing_a_path_gives_back_what_was_said(
    vault: Vault, work: Path, sealed: Callable[..., dict[str, Any]]
) -> None:
    shared = content(MIB)
    (work / "kept").write_bytes(shared)
    (work / "gone").mkdir()
    (work / "gone" / "shared").write_bytes(shared)
    (work / "gone" / "own").write_bytes(content(2 * MIB))
    sealed(work / "kept")
    promised = sealed(work / "gone")["exclusive_bytes"]
    assert 2 * MIB <= promised < 2.1 * MIB
    before = vault.json("du")["live_bytes"]
    shutil.rmtree(work / "gone")
    eventually(lambda: before - vault.json("du")["live_bytes"], lambda freed: freed >= promised)


def test_a_saved_key_is_measured_with_its_entry(vault: Vault, work: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(content(MIB))
    vault.tv("cache", "save", "measured", "tree", cwd=tmp_path)
    (found,) = vault.json("du", str(vault.mount / "keys" / "main" / "measured"))
    assert MIB <= found["exclusive_bytes"] == found["stored_bytes"]
    vault.tv("cache", "get", "measured", cwd=work)
    (found,) = vault.json("du", str(vault.mount / "keys" / "main" / "measured"))
    assert found["exclusive_bytes"] < MIB, "the attached copy keeps it, too"
    (attached,) = vault.json("du", str(work / "tree"))
    assert (attached["files"], attached["logical_bytes"], attached["exclusive_bytes"]) == (1, MIB, 0)


def test_a_hard_link_counts_once_and_is_exclusive_where_all_names_are(
    vault: Vault, work: Path, sealed: Callable[..., dict[str, Any]]
) -> None:
    (work / "a").mkdir()
    (work / "a" / "one").write_bytes(content(MIB))
    os.link(work / "a" / "one", work / "two")
    whole, part = sealed(work), sealed(work / "a")
    assert (whole["files"], whole["logical_bytes"], part["files"]) == (1, MIB, 1)
    assert whole["exclusive_bytes"] == whole["stored_bytes"] == part["stored_bytes"]
    assert part["exclusive_bytes"] == 0


def test_the_whole_vault_adds_up(vault: Vault) -> None:
    whole = vault.json("du")
    parts = [whole[f"{kind}_bytes"] for kind in ("packs", "staging", "meta", "rest")]
    assert sum(parts) == whole["used_bytes"] <= whole["capacity_bytes"]
    assert whole["live_bytes"] + whole["dead_bytes"] == whole["packs_bytes"]
    assert "capacity" not in vault.tv("du").err


@pytest.mark.parametrize("command", ["du", "show"])
def test_a_path_that_is_not_under_the_mount_is_refused(vault: Vault, tmp_path: Path, command: str) -> None:
    assert "is not under" in vault.tv(command, str(tmp_path), exit_code=4).err
    assert "No such file" in vault.tv(command, str(vault.mount / "work" / "nothing"), exit_code=5).err


def test_show_says_what_a_file_is(vault: Vault, work: Path, tmp_path: Path) -> None:
    (work / "file").write_bytes(b"compressible " * 10_000)
    path = str(work / "file")
    found = eventually(lambda: vault.json("show", path), lambda found: found["state"] == "sealed")
    assert (found["kind"], found["ino"]) == ("file", os.stat(path).st_ino)
    (tmp_path / "copy").write_bytes((work / "file").read_bytes())
    assert found["digest"] == vault.tv("hash", str(tmp_path / "copy")).out.strip()
    assert (found["chunks"], found["shared_chunks"], found["codecs"]) == (1, 0, {"zstd": 1})
    assert found["stored_bytes"] < found["logical_bytes"] == 130_000
    assert found["kept_by"] == [f"name {work.relative_to(vault.mount)}/file"]
    with open(path, "ab") as file:
        file.write(b"more")
        file.flush()
        os.fsync(file.fileno())
        found = vault.json("show", path)
        assert (found["state"], found["digest"], found["open_for_writing"]) == ("staged", None, True)
        assert "open" in found["kept_by"]


def test_show_names_the_entries_snapshots_and_places_that_keep_a_content(vault: Vault, work: Path) -> None:
    (work / "tree").mkdir()
    (work / "tree" / "file").write_bytes(content(100_000))
    vault.tv("cache", "save", "keeps", "tree", cwd=work)
    vault.tv("snapshot", str(work / "tree"), "keeps-too")
    vault.tv("attach", "keeps-too", str(work / "place"))
    inside = work.relative_to(vault.mount)
    found = vault.json("show", str(work / "tree" / "file"))
    assert set(found["kept_by"]) >= {
        f"name {inside}/tree/file", "entry main/keeps", "snapshot keeps-too", f"name {inside}/place",
    }  # fmt: skip
    assert found["shared_chunks"] == found["chunks"] > 0


def test_show_says_of_an_attached_directory_which_tree_it_is_until_it_is_changed(vault: Vault, work: Path) -> None:
    (work / "tree").mkdir()
    (work / "tree" / "file").write_bytes(b"x")
    tree = vault.json("snapshot", str(work / "tree"), "which-tree")["tree"]
    vault.tv("attach", "which-tree", str(work / "place"))
    found = vault.json("show", str(work / "place"))
    assert (found["kind"], found["state"], found["digest"]) == ("directory", "attached", tree)
    (work / "place" / "more").touch()
    assert vault.json("show", str(work / "place"))["digest"] is None
    assert vault.json("show", str(work))["state"] == "plain"


def test_an_empty_file_and_a_symlink_can_be_shown(vault: Vault, work: Path) -> None:
    (work / "empty").touch()
    (work / "link").symlink_to("empty")
    assert vault.json("show", str(work / "empty"))["state"] == "empty"
    found = vault.json("show", str(work / "link"))
    assert (found["kind"], found["digest"], found["chunks"]) == ("symlink", None, 0)
