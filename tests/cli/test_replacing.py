"""`tv up --replace`, and what `tv up` leaves behind to take care of the daemon."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from taskvault.cli.replacement import caretaker_of
from taskvault.protocol.caretaking import caretaker_address
from tests.cli.conftest import Vault, clean_up
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault(tmp_path / "home")
    vault.tv("init", "--size", "100M")
    yield vault
    with suppress(AssertionError):
        pid = vault.pid
        clean_up(vault, pid)


def test_a_new_daemon_takes_the_place_of_the_old_one_and_files_stay_open(own: Vault) -> None:
    first = own.json("up")["pid"]
    with open(own.mount / "work" / "file", "w+b", buffering=0) as file:
        file.write(b"before")
        replaced = own.json("up", "--replace")
        assert replaced["started"] is True
        assert replaced["pid"] == own.pid != first
        assert os.pread(file.fileno(), 10, 0) == b"before"
    assert own.tv("down").out == "Down.\n"
    wait_until(lambda: not Path(f"/proc/{first}").exists())


def test_without_a_mount_there_is_nothing_to_take_over_and_it_is_said(own: Vault) -> None:
    pid = own.json("up", "--no-mount")["pid"]
    assert caretaker_of(pid) is None
    assert "`tv down`" in own.tv("up", "--replace", exit_code=4).err
    assert own.pid == pid
    own.tv("down")


def test_a_daemon_is_not_replaced_by_one_that_could_not_start(own: Vault) -> None:
    pid = own.json("up")["pid"]
    (own.home / "config.toml").write_text("[mount]\ntransport = 'pigeon'\n")
    assert "pigeon" in own.tv("up", "--replace", exit_code=5).err
    assert own.pid == pid
    (own.mount / "work" / "file").write_bytes(b"it is served")
    (own.home / "config.toml").unlink()
    own.tv("down")


def test_a_daemon_that_hangs_is_ended_by_force_and_stays_ended(own: Vault) -> None:
    pid = own.json("up")["pid"]
    caretaker = caretaker_of(pid)
    assert caretaker is not None
    os.kill(pid, signal.SIGSTOP)
    assert own.tv("down", "--force").out == "Down.\n"
    wait_until(lambda: not Path(f"/proc/{caretaker}").exists() or " Z " in Path(f"/proc/{caretaker}/stat").read_text())
    assert own.tv("down").out == "Not up.\n"
    assert str(own.mount) not in Path("/proc/self/mountinfo").read_text()


def kill(vault: Vault) -> None:
    """Kill the daemon, and return when it has ended; its caretaker waits a moment."""
    pid = vault.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_after_a_kill_up_starts_the_daemon_at_once_and_files_stay_open(own: Vault) -> None:
    first = own.json("up")["pid"]
    with open(own.mount / "work" / "file", "w+b", buffering=0) as file:
        file.write(b"before")
        kill(own)
        again = own.json("up")
        assert (again["started"], again["mount"]) == (True, str(own.mount))
        assert own.pid != first
        assert os.pread(file.fileno(), 10, 0) == b"before"
    assert own.json("up")["started"] is False
    own.tv("down")


def test_after_a_kill_the_vault_can_be_checked_and_what_was_repaired_is_not_taken_over(own: Vault) -> None:
    own.tv("up")
    # The first close asks whether closes are to be told; the one below must not, when nobody is there any more.
    (own.mount / "work" / "closed").touch()
    with open(own.mount / "work" / "file", "w+b", buffering=0) as file:
        file.write(b"before")
        os.unlink(own.mount / "work" / "file")
        kill(own)
        assert "it was removed while it was open" in own.tv("fsck", exit_code=1).out
        own.tv("up")
        with pytest.raises(OSError, match=r"not connected|Input/output|abort"):
            os.pread(file.fileno(), 10, 0)
    (own.mount / "work" / "new").write_bytes(b"new")
    own.tv("down")


def test_after_a_kill_down_lets_go_of_the_mount(own: Vault) -> None:
    caretaker = caretaker_of(own.json("up")["pid"])
    kill(own)
    assert own.tv("down").out == "Not up.\n"
    wait_until(lambda: not Path(f"/proc/{caretaker}").exists() or " Z " in Path(f"/proc/{caretaker}/stat").read_text())
    assert str(own.mount) not in Path("/proc/self/mountinfo").read_text()


def test_who_has_taken_the_caretakers_address_holds_nobody_up(own: Vault) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(caretaker_address(own.home))
        assert own.tv("down").out == "Not up.\n"
        own.tv("up")
    with open(own.mount / "work" / "file", "w+b", buffering=0) as file:
        file.write(b"before")
        kill(own)
        # Now the address is free, and the caretaker has it.
        assert own.json("up")["started"] is True
        assert os.pread(file.fileno(), 10, 0) == b"before"
    own.tv("down")
