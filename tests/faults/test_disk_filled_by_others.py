"""Another program fills the disk to the last byte: whoever writes is told, removing works, and nothing is lost."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import pytest

from tests.daemon.conftest import Daemon
from tests.faults.conftest import du
from tests.waiting import wait_until
from tvfs.catalog.ballast import LEAST_BYTES, PIECE_BYTES, Ballast

FILES = 120
FILE_BYTES = 60_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 96 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def daemon(disk: Path, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(disk / "vault")
    made.mount = tmp_path / "mount"
    assert made.start(mounted=True, env={"TASKVAULT_VAULT_CAPACITY_BYTES": "64M"})["ok"]
    wait_until(lambda: (made.home / "ballast").exists() and (made.home / "ballast").stat().st_blocks)
    yield made
    made.clean_up()


def fill(place: Path) -> Path:
    """Take all that there is."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for piece in (1 << 20, 4096, 1):
            with pytest.raises(OSError, match="No space left"):
                write_for_ever(file, piece)
    assert os.statvfs(place).f_bavail == 0
    return filler


def write_for_ever(file: RawIOBase, length: int) -> None:
    while True:
        file.write(bytes(length))


def content(number: int) -> bytes:
    return random.Random(number).randbytes(FILE_BYTES)


@pytest.mark.kernel
def test_on_a_disk_without_a_byte_things_can_be_removed_and_read_and_not_written(daemon: Daemon, disk: Path) -> None:
    work = daemon.mount / "work"
    for number in range(FILES):
        (work / f"{number}").write_bytes(content(number))
    filler = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        (work / "new").write_bytes(bytes(200_000))
    for number in range(FILES // 2):
        (work / f"{number}").unlink()
    for number in range(FILES // 2, FILES):
        assert (work / f"{number}").read_bytes() == content(number)
    # And whoever kills the daemon now can start it again.
    daemon.kill()
    fill(disk)
    assert daemon.start(mounted=True)["ok"], daemon.told
    for number in range(FILES // 2):
        assert not (work / f"{number}").exists()
    (work / f"{FILES - 1}").unlink()
    filler.unlink()
    wait_until(lambda: (daemon.home / "ballast").stat().st_size == LEAST_BYTES)
    (work / "new").write_bytes(bytes(200_000))
    for number in range(FILES // 2, FILES - 1):
        assert (work / f"{number}").read_bytes() == content(number)
    assert daemon.stop() == 0
    assert (daemon.home / "ballast").stat().st_size == LEAST_BYTES


@pytest.mark.kernel
def test_the_ballast_is_a_part_of_the_vaults_size(daemon: Daemon) -> None:
    from taskvault.protocol.messages import GetStatistics

    with daemon.client() as client:
        wait_until(lambda: client.call(GetStatistics()).figures["used_bytes"] == du(daemon.home))


def test_ballast_goes_piece_by_piece_and_only_where_there_is_no_room(tmp_path: Path, disk: Path) -> None:
    elsewhere = Ballast(tmp_path / "ballast", 1 << 40)
    elsewhere.make()
    elsewhere.look()
    assert elsewhere.size_bytes == elsewhere.full_bytes == (tmp_path / "ballast").stat().st_blocks * 512 == 32 << 20
    ballast = Ballast(disk / "ballast", 256 << 20)
    ballast.make()
    assert ballast.size_bytes == 4 << 20
    fill(disk)
    ballast.look()
    assert ballast.size_bytes == (4 << 20) - PIECE_BYTES
    assert Ballast(disk / "ballast", 256 << 20).give_all()
    assert not (disk / "ballast").stat().st_size
    ballast.make()  # there is no room for it
    assert not Ballast(disk / "ballast", 256 << 20).size_bytes
