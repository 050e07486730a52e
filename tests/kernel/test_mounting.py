"""What is found at a mount point before mounting: replaced if it is our own dead mount, refused otherwise."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.conftest import Serve, detach

pytestmark = pytest.mark.kernel


def vault(name: str) -> tuple[str, str]:
    return "--settings", json.dumps({"vault": name})


def mounts_at(point: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {point} " in line]


def test_a_missing_mount_point_is_made(serve: Serve, tmp_path: Path) -> None:
    server = serve(point=tmp_path / "not" / "there yet")
    assert server.work.is_dir()


def test_the_mount_says_whose_it_is(serve: Serve) -> None:
    server = serve(*vault("/srv/my vault,1"))
    (line,) = mounts_at(server.point)
    assert " fuse.taskvault taskvault:/srv/my%20vault%2C1 " in line
    assert "nosuid,nodev" in line
    assert "default_permissions" in line


def test_a_killed_server_is_replaced_by_starting_again(serve: Serve) -> None:
    first = serve()
    (first.work / "file").touch()
    first.kill()
    with pytest.raises(OSError) as dead:
        os.listdir(first.work)
    assert dead.value.errno == errno.ENOTCONN
    second = serve()
    assert os.listdir(second.work) == []
    assert len(mounts_at(second.point)) == 1


def test_a_killed_server_with_open_files_is_replaced_too(serve: Serve) -> None:
    first = serve()
    descriptor = os.open(first.work / "file", os.O_CREAT | os.O_RDWR)
    first.kill()
    second = serve()
    (second.work / "file").write_text("of the second")
    with pytest.raises(OSError):
        os.fstatvfs(descriptor)
    with suppress(OSError):
        os.close(descriptor)
    assert (second.work / "file").read_text() == "of the second"


def test_several_dead_mounts_on_top_of_each_other_are_all_taken_away(serve: Serve, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    first = serve()
    subprocess.run(["mount", "--bind", str(point / "work"), str(point)], check=True)
    assert len(mounts_at(point)) == 2
    first.kill()
    second = serve()
    assert len(mounts_at(point)) == 1
    assert sorted(os.listdir(second.point)) == ["cas", "keys", "runs", "snapshots", "work"]


@pytest.mark.parametrize("owner", ["test", "other"])
def test_a_mount_that_is_alive_is_left_alone(serve: Serve, owner: str) -> None:
    first = serve(*vault(owner))
    (first.work / "file").write_text("precious")
    refused = serve(mounted=False).answer("failed")
    assert refused["error"] == "MountPointBusy"
    assert f"taskvault:{owner} is mounted at {first.point} and is in use" in refused["message"]
    assert (first.work / "file").read_text() == "precious"


def test_a_dead_mount_of_another_vault_is_left_for_its_owner(serve: Serve) -> None:
    serve(*vault("other")).kill()
    refused = serve(mounted=False).answer("failed")
    assert refused["error"] == "MountPointBusy"
    assert "its daemon has died" in refused["message"]


def test_a_foreign_mount_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "foreign", str(point)], check=True)
    try:
        refused = serve(mounted=False).answer("failed")
        assert refused["error"] == "MountPointBusy"
        assert "foreign is mounted" in refused["message"]
    finally:
        detach(point)


def test_a_mount_that_does_not_answer_is_left_alone_and_waited_for_briefly(serve: Serve) -> None:
    first = serve()
    first.send_signal(signal.SIGSTOP)
    refused = serve(mounted=False).answer("failed")
    assert refused["error"] == "MountPointBusy"
    assert "does not answer" in refused["message"]


def test_a_directory_with_files_in_it_is_not_hidden(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "thesis.tex").touch()
    refused = serve(mounted=False).answer("failed")
    assert refused["error"] == "MountPointNotEmpty"
    assert "thesis.tex" in refused["message"]
    assert not mounts_at(tmp_path / "mnt")


def test_a_file_is_no_mount_point(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "mnt").touch()
    refused = serve(mounted=False).answer("failed")
    assert refused["error"] == "MountPointInvalid"
    assert "it is no directory" in refused["message"]


def test_a_symlink_to_a_directory_is_a_mount_point(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "mnt").symlink_to("real")
    server = serve(point=tmp_path / "mnt")
    assert mounts_at(tmp_path / "real")
    server.close()
    detach(tmp_path / "real")


def test_the_kernel_reads_ahead_as_far_as_set(serve: Serve) -> None:
    server = serve("--settings", json.dumps({"vault": "test", "read_ahead_kib": 512}))
    (line,) = mounts_at(server.point)
    device = line.split()[2]
    assert Path(f"/sys/class/bdi/{device}/read_ahead_kb").read_text() == "512\n"
