"""`tv verify`, `tv audit`, `tv fsck`: what they say, and their exit statuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Vault, clean_up, conforms
from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.rocks import RocksCatalog


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Vault]:
    """A vault of the test's own, up without a mount, with one key."""
    made = Vault(tmp_path / "home")
    made.tv("init", "--size", "256M")
    made.tv("up", "--no-mount")
    pid = made.pid
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(500_000))
    made.tv("cache", "save", "key", "tree", cwd=tmp_path)
    yield made
    clean_up(made, pid)


def damage(vault: Vault) -> None:
    pack = max((vault.home / "packs").iterdir(), key=lambda path: path.stat().st_size)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(b"\0" * 8)


def test_verify_finds_damage_says_whose_it_is_and_is_content_after_saving_again(own: Vault, tmp_path: Path) -> None:
    assert own.tv("verify", "--rate", "100M").out.startswith("Verified ")
    damage(own)
    found = answer(own, "verify", exit_code=1)
    assert found["holders"] == ["entry main/key: tree/noise"]
    assert len(found["bad"]) == 1
    assert "entry main/key: tree/noise" in own.tv("verify", exit_code=1).out
    own.tv("cache", "get", "key", "--to", str(tmp_path / "copy"), exit_code=5)
    own.tv("cache", "save", "key", "tree", "--replace", cwd=tmp_path)
    assert answer(own, "verify")["bad"] == []
    own.tv("cache", "get", "key", "--to", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "tree" / "noise").read_bytes() == (tmp_path / "tree" / "noise").read_bytes()


def answer(vault: Vault, *arguments: str, exit_code: int = 0) -> Any:
    value = json.loads(vault.tv(*arguments, "--json", exit_code=exit_code).out)
    conforms(" ".join(arguments), value)
    return value


def test_audit_lists_what_was_done_and_checks_the_log(own: Vault, tmp_path: Path) -> None:
    own.tv("cache", "save", "other", "tree", cwd=tmp_path)
    own.tv("cache", "rm", "key")
    assert [(line["action"], line["key"]) for line in answer(own, "audit")] == [
        ("remove", "key"), ("save", "other"), ("save", "key"),
    ]  # fmt: skip
    assert [line["seq"] for line in answer(own, "audit", "--key", "key", "--limit", "1")] == [3]
    assert answer(own, "audit", "--scope", "pr/1") == []
    assert "remove" in own.tv("audit").out
    assert answer(own, "audit", "verify") == {"records": 3, "broken_at": None, "reason": ""}
    assert own.tv("audit", "verify").out == "All 3 records are as they were written.\n"


@pytest.mark.damages_vault("a pack is damaged")
def test_fsck_refuses_while_the_daemon_runs_and_proposes_and_repairs_when_it_is_down(own: Vault) -> None:
    assert "in use by process" in own.tv("fsck", exit_code=4).err
    own.tv("down")
    assert own.tv("fsck").out == "Nothing is wrong.\n"
    damage(own)
    proposed = answer(own, "fsck", "--dry-run", exit_code=1)
    assert proposed["dry_run"]
    assert {finding["check"] for finding in proposed["findings"]} >= {"chunks", "entries"}
    assert "would be removed" in own.tv("fsck", "--dry-run", exit_code=1).out
    repaired = answer(own, "fsck", exit_code=1)
    assert repaired["findings"] == proposed["findings"]
    assert answer(own, "fsck", "--content") == {"home": str(own.home), "dry_run": False, "count": 0, "findings": []}
    own.tv("up", "--no-mount")
    assert own.json("cache", "ls") == []
    own.tv("down")


@pytest.mark.damages_vault("a row of an entry")
def test_an_entry_that_cannot_be_read_is_named_and_hides_no_other(own: Vault, tmp_path: Path) -> None:
    own.tv("cache", "save", "damaged", "tree", cwd=tmp_path)
    own.tv("down")
    catalog = RocksCatalog(own.home / "meta")
    batch = Batch()
    batch.put(Family.ENTRY, b"main\0damaged", b"\x01garbage")
    catalog.write(batch)
    catalog.close()
    own.tv("up", "--no-mount")
    listed = own.tv("cache", "ls", "--json")
    assert [entry["key"] for entry in json.loads(listed.out)] == ["key"]
    assert "tv: The entry 'damaged' in scope 'main' is damaged" in listed.err
    assert "near ones are key" in own.tv("cache", "get", "kez", "--to", str(tmp_path / "copy"), exit_code=1).err
    own.tv("cache", "rm", "damaged")
    assert own.tv("cache", "ls").err == ""
    own.tv("down")


def test_fsck_of_no_vault_says_so(tmp_path: Path) -> None:
    none = Vault(tmp_path / "nowhere")
    assert "There is no vault" in none.tv("fsck", exit_code=5).err
