"""`tv cache`, `snapshot`, `attach`, `rm` against a real daemon and mount."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from taskvault.client import Client
from taskvault.protocol.messages import GetStatistics
from tests.cli.conftest import Vault

pytestmark = pytest.mark.kernel


def fill(directory: Path) -> None:
    (directory / "tree/deep").mkdir(parents=True)
    (directory / "tree/deep/big").write_bytes(os.urandom(300_000))
    (directory / "tree/run.sh").write_text("#!/bin/sh\n")
    (directory / "tree/run.sh").chmod(0o755)
    (directory / "tree/link").symlink_to("run.sh")
    (directory / "tree/empty").mkdir()
    (directory / "single").write_text("single")


def shape(directory: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        times = status.st_mtime_ns if not path.is_dir() else None
        found[str(path.relative_to(directory))] = (stat.filemode(status.st_mode), content, times)
    return found


@pytest.mark.parametrize("target", ["mount", "disk"])
def test_what_is_saved_comes_back_the_same(vault: Vault, place: Path, work_or_disk: Path, target: str) -> None:
    fill(place)
    key = f"round-{place.name[:40]}-{target}"
    vault.tv("cache", "save", key, "tree", "single", cwd=place)
    vault.tv("cache", "get", key, "--to", str(work_or_disk / "new"), cwd=place)
    assert shape(work_or_disk / "new") == shape(place)


@pytest.fixture
def work_or_disk(
    vault: Vault, tmp_path_factory: pytest.TempPathFactory, target: str, request: pytest.FixtureRequest
) -> Path:
    if target == "disk":
        return tmp_path_factory.mktemp("to")
    directory: Path = vault.mount / "work" / ("to-" + str(request.node.name)[:200])
    directory.mkdir()
    return directory


def test_under_the_mount_it_is_attached_and_elsewhere_copied(vault: Vault, work: Path, tmp_path: Path) -> None:
    fill(work)
    vault.tv("cache", "save", "attached", "tree", cwd=work)
    assert vault.json("cache", "get", "attached", "--to", str(work / "new"))["attached"] is True
    assert vault.json("cache", "get", "attached", "--to", str(tmp_path / "new"))["attached"] is False


def test_into_a_directory_that_exists_it_is_merged(vault: Vault, place: Path) -> None:
    fill(place)
    key = f"merge-{place.name[:40]}"
    vault.tv("cache", "save", key, "tree", "single", cwd=place)
    (place / "tree/mine").write_text("mine")
    (place / "tree/run.sh").write_text("changed")
    (place / "single").unlink()
    vault.tv("cache", "get", key, cwd=place)
    assert (place / "tree/mine").read_text() == "mine"
    assert (place / "tree/run.sh").read_text() == "#!/bin/sh\n"
    assert (place / "single").read_text() == "single"


def test_what_is_in_the_way_is_named_and_nothing_is_changed(vault: Vault, work: Path) -> None:
    fill(work)
    vault.tv("cache", "save", "way", "tree", "single", cwd=work)
    (work / "other/tree").mkdir(parents=True)
    (work / "other/tree/deep").write_text("a file where a directory belongs")
    said = vault.tv("cache", "get", "way", "--to", str(work / "other"), exit_code=4)
    assert "tree/deep" in said.err
    assert sorted(path.name for path in (work / "other").iterdir()) == ["tree"]


def test_a_path_outside_is_kept_under_its_last_name(vault: Vault, work: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/x").write_text("x")
    vault.tv("cache", "save", "outside", str(tmp_path / "far"), cwd=work)
    vault.tv("cache", "get", "outside", "--to", str(work / "back"))
    assert (work / "back/far/x").read_text() == "x"


def test_a_key_is_replaced_only_on_request(vault: Vault, work: Path) -> None:
    (work / "a").write_text("one")
    vault.tv("cache", "save", "once", "a", cwd=work)
    (work / "a").write_text("two")
    said = vault.tv("cache", "save", "once", "a", cwd=work, exit_code=4)
    assert "--replace" in said.err
    vault.tv("cache", "save", "--replace", "once", "a", cwd=work)
    vault.tv("cache", "get", "once", "--to", str(work / "back"))
    assert (work / "back/a").read_text() == "two"


def test_a_miss_is_exit_status_1_and_names_near_keys(vault: Vault, work: Path) -> None:
    (work / "a").write_text("a")
    vault.tv("cache", "save", "near-miss-key-1", "a", cwd=work)
    said = vault.tv("cache", "get", "near-miss-key-2", cwd=work, exit_code=1)
    assert "near-miss-key-1" in said.err
    assert said.out == ""


def test_a_fallback_takes_the_newest_with_the_prefix(vault: Vault, work: Path) -> None:
    for key in ("fall-b", "fall-a", "unrelated"):
        (work / "a").write_text(key)
        vault.tv("cache", "save", key, "a", cwd=work)
    said = vault.json(
        "cache", "get", "fall-x", "--fallback", "none-", "--fallback", "fall-", "--to", str(work / "back")
    )
    assert (said["key"], said["hit"]) == ("fall-a", False)
    assert (work / "back/a").read_text() == "fall-a"


def test_scopes_do_not_see_each_other(vault: Vault, work: Path) -> None:
    (work / "a").write_text("a")
    vault.tv("cache", "save", "scoped", "a", "--scope", "pr/1", cwd=work)
    vault.tv("cache", "get", "scoped", cwd=work, exit_code=1)
    assert [entry["key"] for entry in vault.json("cache", "ls", "--scope", "pr/1")] == ["scoped"]
    vault.tv("cache", "rm", "scoped", "--scope", "pr/1")
    vault.tv("cache", "rm", "scoped", "--scope", "pr/1", exit_code=1)


@pytest.mark.parametrize("key", ["", "a/b", "..", ".", "k" * 256, b"caf\xe9", "new\nline"])
def test_what_cannot_be_a_key_is_refused_with_a_sentence(vault: Vault, work: Path, key: str | bytes) -> None:
    (work / "a").write_text("a")
    said = vault.tv("cache", "save", key, "a", cwd=work, exit_code=4)
    assert said.err.startswith("tv: The key")
    vault.tv("cache", "get", key, cwd=work, exit_code=4)


def test_a_key_of_255_bytes_works(vault: Vault, work: Path) -> None:
    (work / "a").write_text("a")
    vault.tv("cache", "save", "k" * 255, "a", cwd=work)
    vault.tv("cache", "get", "k" * 255, "--to", str(work / "back"))
    assert (vault.mount / "keys/main" / ("k" * 255) / "a").read_text() == "a"


def test_names_that_are_not_utf_8_come_back_the_same(vault: Vault, place: Path, tmp_path: Path) -> None:
    name = b"caf\xe9-\x01-%41 \n" + b"x" * 200
    directory = os.fsencode(place) + b"/d"
    os.mkdir(directory)
    with open(directory + b"/" + name, "wb") as file:
        file.write(b"content")
    key = f"bytes-{place.name[:40]}"
    vault.tv("cache", "save", key, "d", cwd=place)
    vault.tv("cache", "save", f"{key}-direct", directory + b"/" + name, cwd=place)
    for target in (vault.mount / "work" / f"back-{key}", tmp_path / "back"):
        vault.tv("cache", "get", key, "--to", str(target))
        assert os.listdir(os.fsencode(target) + b"/d") == [name]
        vault.tv("cache", "get", f"{key}-direct", "--to", f"{target}-direct")


def test_a_path_that_is_not_there_is_named_and_nothing_is_saved(vault: Vault, place: Path) -> None:
    (place / "a").write_text("a")
    said = vault.tv("cache", "save", "absent", "a", "missing", cwd=place, exit_code=4)
    assert "missing" in said.err
    vault.tv("cache", "show", "absent", exit_code=1)


def test_a_client_that_is_killed_leaves_no_entry_and_a_vault_that_works(
    vault: Vault, tmp_path: Path, work: Path
) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(400):
        (tmp_path / "tree" / str(number)).write_bytes(os.urandom(100_000))
    with Client.connect(vault.home) as client:
        process = vault.start("cache", "save", "killed", "tree", cwd=tmp_path)
        while process.poll() is None and not client.call(GetStatistics()).figures["reserved_bytes"]:
            pass
        process.send_signal(signal.SIGSTOP)
        assert client.call(GetStatistics()).figures["reserved_bytes"], "stopped too late; make the tree larger"
        process.kill()
        process.communicate()
    vault.tv("cache", "show", "killed", exit_code=1)
    vault.tv("cache", "save", "killed", "tree", cwd=tmp_path)
    vault.tv("cache", "get", "killed", "--to", str(work / "back"))
    assert shape(work / "back/tree") == shape(tmp_path / "tree")


def test_snapshots_have_names_and_digests(vault: Vault, place: Path) -> None:
    fill(place)
    name = f"snap-{place.name[:40]}"
    tree = vault.json("snapshot", "tree", name, cwd=place)["tree"]
    assert vault.tv("hash", "tree", cwd=place).out.strip() == tree
    assert (vault.mount / "snapshots" / name / "run.sh").read_text() == "#!/bin/sh\n"
    vault.tv("snapshot", "tree", name, cwd=place, exit_code=4)
    vault.tv("attach", name, "by-name", cwd=place)
    vault.tv("attach", tree, "by-digest", cwd=place)
    assert shape(place / "by-name") == shape(place / "by-digest") == shape(place / "tree")
    vault.tv("attach", name, "by-name", cwd=place, exit_code=4)
    vault.tv("attach", "no-such-snapshot", "x", cwd=place, exit_code=1)


def test_rm_removes_under_the_mount_and_refuses_elsewhere(vault: Vault, work: Path, tmp_path: Path) -> None:
    fill(work)
    (tmp_path / "mine").touch()
    said = vault.tv("rm", "tree", str(tmp_path / "mine"), cwd=work, exit_code=4)
    assert "not under" in said.err
    assert (work / "tree").exists()
    vault.tv("rm", "tree", "single", cwd=work)
    assert list(work.iterdir()) == []
    vault.tv("rm", "tree", cwd=work, exit_code=5)
    vault.tv("rm", str(vault.mount), exit_code=4)
