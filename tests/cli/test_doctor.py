"""`tv doctor`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Vault, clean_up, conforms, kill

pytestmark = pytest.mark.kernel


def findings(vault: Vault, **variables: str) -> dict[str, dict[str, Any]]:
    process = vault.start("doctor", "--json", cwd=Path("/"), env=variables)
    out, err = process.communicate(timeout=60)
    assert err == b""
    value = json.loads(out)
    conforms("doctor", value)
    failed = any(finding["state"] == "failed" for finding in value)
    assert process.returncode == (1 if failed else 0)
    return {finding["name"]: finding for finding in value}


def test_everything_is_looked_at_and_all_is_well_on_this_machine(vault: Vault) -> None:
    found = findings(vault)
    assert set(found) >= {
        "FUSE device", "FUSE module", "fusermount3", "other users", "kernel", "kernel features", "open files",
        "locked memory", "python packages", "clock", "vault", "last record", "disk space", "file system", "fsync",
        "socket", "mount", "daemon",
    }  # fmt: skip
    assert {name for name, each in found.items() if each["state"] == "failed"} == set()
    assert str(vault.mount) in found["daemon"]["fact"]
    assert str(vault.mount) in found["mount"]["fact"]


def test_it_needs_no_vault(tmp_path: Path) -> None:
    found = findings(Vault(tmp_path / "nowhere" / "home"))
    assert "not made yet" in found["vault"]["fact"]
    assert found["daemon"]["fact"].startswith("not up")
    assert not (tmp_path / "nowhere").exists(), "nothing was made"


def test_a_vault_whose_name_is_no_text_is_looked_at_too(tmp_path: Path) -> None:
    findings(Vault(tmp_path / os.fsdecode(b"caf\xe9")))


def test_everything_that_is_not_well_has_a_remedy(tmp_path: Path, vault: Vault) -> None:
    places = [Vault(tmp_path / "home"), Vault(Path("/dev/shm/taskvault-doctor")), Vault(vault.mount / "work" / "v")]
    for place in places:
        for finding in findings(place).values():
            assert finding["state"] == "ok" or finding["remedy"], finding


def test_a_vault_under_a_mount_of_ours_or_in_memory_is_not_well(vault: Vault) -> None:
    assert findings(Vault(Path("/dev/shm/taskvault-doctor")))["file system"]["state"] == "warning"
    own = findings(Vault(vault.mount / "work" / "v"))["file system"]
    assert (own["state"], "wait for itself" in own["fact"]) == ("failed", True)


def test_a_daemon_that_was_killed_leaves_a_mount_and_a_socket_that_are_named(tmp_path: Path) -> None:
    own = Vault(tmp_path / "home")
    own.tv("init", "--size", "100M")
    own.tv("up")
    pid = own.pid
    try:
        kill(pid)
        own_mount = findings_when_gone(own, pid)
        assert (own_mount["mount"]["state"], "`tv up`" in own_mount["mount"]["remedy"]) == ("warning", True)
        assert own_mount["socket"]["state"] == "warning"
        assert own_mount["daemon"]["fact"].startswith("not up")
    finally:
        clean_up(own, pid)


def findings_when_gone(vault: Vault, pid: int) -> dict[str, dict[str, Any]]:
    subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], check=True, timeout=30)
    return findings(vault)


def test_a_daemon_that_hangs_is_found_out_within_seconds(tmp_path: Path) -> None:
    own = Vault(tmp_path / "home")
    own.tv("init", "--size", "100M")
    own.tv("up", "--no-mount")
    pid = own.pid
    try:
        os.kill(pid, signal.SIGSTOP)
        found = findings(own)["daemon"]
        assert (found["state"], "tv down --force" in found["remedy"]) == ("failed", True)
    finally:
        os.kill(pid, signal.SIGCONT)
        own.tv("down")


def test_what_is_wrong_with_the_place_is_said(tmp_path: Path) -> None:
    own = Vault(tmp_path / "home")
    own.tv("init", "--size", "100M")
    os.chmod(own.home, 0o777)
    (own.home / "control.sock").write_text("no socket")
    os.utime(own.home / "tvd.log" if (own.home / "tvd.log").exists() else own.home / "format", (4e9, 4e9))
    found = findings(own)
    assert (found["vault"]["state"], "chmod o-w" in found["vault"]["remedy"]) == ("failed", True)
    assert found["socket"]["fact"].endswith("is no socket")
    assert (found["last record"]["state"], "set the clock" in found["last record"]["remedy"]) == ("warning", True)


def test_a_socket_that_is_open_to_everybody_is_not_well(tmp_path: Path) -> None:
    own = Vault(tmp_path / "home")
    own.tv("init", "--size", "100M")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own.home / "control.sock"))
        os.chmod(own.home / "control.sock", 0o777)
        assert findings(own)["socket"]["state"] == "failed"


def test_too_few_open_files_are_found_out(vault: Vault) -> None:
    script = f"ulimit -n 200; exec {sys.executable} -m taskvault doctor --json"
    done = subprocess.run(
        ["sh", "-c", script], cwd=vault.home.parent, env=vault.environment(), capture_output=True, check=False
    )
    (found,) = [each for each in json.loads(done.stdout) if each["name"] == "open files"]
    assert (done.returncode, found["state"], found["fact"]) == (1, "failed", "at most 200")
