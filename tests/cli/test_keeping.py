"""How long what is saved is kept: `--ttl`, pins, snapshots with and without a name, and removing what is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskvault.client import Client
from taskvault.protocol.messages import CollectGarbage, GetEntry, ListEntries
from tests.cli.conftest import Vault

pytestmark = pytest.mark.kernel


@pytest.fixture
def saved(vault: Vault, work: Path) -> str:
    """A key, saved from `work`."""
    (work / "a").write_text(work.name)
    key = f"key-{work.name[:100]}"
    vault.tv("cache", "save", key, "a", cwd=work)
    return key


def test_an_entry_with_a_time_to_live_is_not_found_after_it(vault: Vault, work: Path) -> None:
    (work / "a").write_text("a")
    vault.tv("cache", "save", "short", "a", "--ttl", "2s", cwd=work)
    assert vault.json("cache", "show", "short")["expires"] is not None
    with Client.connect(vault.home) as client:
        while client.call(GetEntry("main", "short")).entry is not None:
            pass
        assert "short" not in [entry.key for entry in client.call(ListEntries()).entries]
    vault.tv("cache", "get", "short", cwd=work, exit_code=1)
    vault.tv("cache", "rm", "short", exit_code=1)
    vault.tv("cache", "pin", "short", exit_code=1)
    vault.tv("cache", "save", "short", "a", cwd=work)
    assert vault.json("cache", "show", "short")["expires"] is None


@pytest.mark.parametrize("ttl", ["", "7", "1.5h", "0s", "soon"])
def test_what_is_no_duration_is_refused_before_anything_is_read(vault: Vault, work: Path, ttl: str) -> None:
    said = vault.tv("cache", "save", "k", "missing", "--ttl", ttl, cwd=work, exit_code=2)
    assert "--ttl" in said.err


def test_a_pinned_key_says_so_and_may_be_unpinned(vault: Vault, work: Path, saved: str) -> None:
    vault.tv("cache", "save", "--pin", f"{saved}-2", "a", cwd=work)
    assert vault.tv("cache", "pin", saved).out == f"Pinned {saved}.\n"
    assert [vault.json("cache", "show", key)["pinned"] for key in (saved, f"{saved}-2")] == [True, True]
    lines = [line for line in vault.tv("cache", "ls").out.splitlines() if saved in line]
    assert len(lines) == 2
    assert all(" pinned" in line for line in lines)
    assert vault.json("cache", "unpin", saved) == {"scope": "main", "keys": [saved], "pinned": False}
    assert vault.json("cache", "show", saved)["pinned"] is False
    vault.tv("cache", "pin", "no-such-key", exit_code=1)


def test_a_pin_says_that_a_time_to_live_ends_all_the_same(vault: Vault, work: Path) -> None:
    (work / "a").write_text("a")
    vault.tv("cache", "save", "pinned-week", "a", "--ttl", "1w", "--pin", cwd=work)
    line = next(line for line in vault.tv("cache", "ls").out.splitlines() if "pinned-week" in line)
    assert "pinned  20" in line
    assert "expires at" in vault.tv("cache", "pin", "pinned-week").out


def test_fallbacks_take_the_newest_and_count_as_a_use(vault: Vault, work: Path) -> None:
    for key in ("fallback-b-1", "fallback-a-1", "fallback-a-2"):
        (work / "a").write_text(key)
        vault.tv("cache", "save", key, "a", cwd=work)
    for prefix, expected in (("fallback-", "fallback-a-2"), ("fall", "fallback-a-2"), ("fallback-b", "fallback-b-1")):
        said = vault.json("cache", "get", "fallback-x", "--fallback", prefix, "--to", str(work / f"to-{prefix}"))
        assert (said["key"], said["hit"]) == (expected, False)
    assert vault.json("cache", "show", "fallback-a-2")["uses"] == 2


def test_a_snapshot_without_a_name_is_attached_by_its_digest_after_everything_else_has_gone(
    vault: Vault, work: Path
) -> None:
    (work / "tree").mkdir()
    (work / "tree/file").write_bytes(os.urandom(1000))
    content = (work / "tree/file").read_bytes()
    tree = vault.json("snapshot", "tree", cwd=work)["tree"]
    vault.tv("rm", "tree", cwd=work)
    assert tree not in os.listdir(vault.mount / "snapshots")
    with Client.connect(vault.home) as client:
        client.call(CollectGarbage())
        assert tree not in [entry.key for entry in client.call(ListEntries()).entries]
    vault.tv("attach", tree, "back", cwd=work)
    assert (work / "back/file").read_bytes() == content
    assert vault.tv("snapshot", "--rm", tree).out == f"Forgot the snapshot {tree}.\n"
    vault.tv("snapshot", "--rm", tree, exit_code=1)


def test_a_named_snapshot_is_removed_by_its_name(vault: Vault, work: Path) -> None:
    (work / "tree").mkdir()
    vault.tv("snapshot", "tree", "to-remove", cwd=work)
    assert vault.json("snapshot", "--rm", "to-remove") == ["to-remove"]
    assert not (vault.mount / "snapshots/to-remove").exists()
    vault.tv("snapshot", "--rm", "to-remove", exit_code=1)
    vault.tv("attach", "to-remove", "x", cwd=work, exit_code=1)
    vault.tv("snapshot", exit_code=2)
    vault.tv("snapshot", "tree", "--rm", "x", cwd=work, exit_code=2)


def test_rm_forgets_what_keys_and_snapshots_show(vault: Vault, work: Path) -> None:
    (work / "tree").mkdir()
    (work / "tree/file").write_text("file")
    vault.tv("cache", "save", "shown%", "tree", "--scope", "pr/1%", cwd=work)
    vault.tv("snapshot", "tree", "shown", cwd=work)
    keys, snapshots = vault.mount / "keys/pr%2F1%25", vault.mount / "snapshots"
    for path in (keys / "shown%/tree/file", snapshots / "shown/file"):
        said = vault.tv("rm", str(path), exit_code=4)
        assert f"tv rm {keys / 'shown%'}`" in said.err or "tv snapshot --rm shown`" in said.err
    assert "tv cache rm --scope pr/1%" in vault.tv("rm", str(keys), exit_code=4).err
    vault.tv("rm", str(keys / "shown%"), str(snapshots / "shown"))
    vault.tv("cache", "show", "shown%", "--scope", "pr/1%", exit_code=1)
    assert not (snapshots / "shown").exists()


@pytest.mark.parametrize("path", ["work", "keys", "runs", "cas"])
def test_rm_does_not_remove_what_is_always_there(vault: Vault, path: str) -> None:
    assert "always there" in vault.tv("rm", str(vault.mount / path), exit_code=4).err


def test_rm_forgets_the_result_that_a_run_shows(vault: Vault, work: Path) -> None:
    (work / "in").write_text("in")
    command = ("run", "--root", str(work), "--input", "in", "--output", "out", "--", "sh", "-c", "cat in > out")
    vault.tv(*command, cwd=work)
    run = vault.json("runs")[0]
    assert run["outcome"] == "stored"
    vault.tv("rm", str(vault.mount / "runs" / run["run"]))
    assert not (vault.mount / "runs" / run["run"]).exists()
    vault.tv(*command, cwd=work)
    assert vault.json("runs")[0]["outcome"] == "stored"
