"""What a directory must be to be mounted on; dead and living mounts are in tests/kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvfs.fuse.mount_point import (
    MountPointBusy,
    MountPointInvalid,
    MountPointNotEmpty,
    mount_source,
    prepare_mount_point,
)


async def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    assert await prepare_mount_point(f"{tmp_path}/a/b", "taskvault:x") == f"{tmp_path}/a/b"
    assert (tmp_path / "a" / "b").is_dir()


async def test_a_directory_with_something_in_it_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    with pytest.raises(MountPointNotEmpty, match=r"not empty \(it has '.hidden'\).*tv up --mount"):
        await prepare_mount_point(str(tmp_path), "taskvault:x")


@pytest.mark.parametrize("point", ["file", "file/below", "loop"])
async def test_what_cannot_be_a_directory_is_refused(tmp_path: Path, point: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MountPointInvalid, match="cannot be a mount point"):
        await prepare_mount_point(str(tmp_path / point), "taskvault:x")


async def test_what_others_have_mounted_is_refused() -> None:
    with pytest.raises(MountPointBusy, match="is mounted at /proc and is in use"):
        await prepare_mount_point("/proc", "taskvault:x")


def test_two_vaults_never_have_the_same_source() -> None:
    names = ["/a b", "/a_b", "/a,b", "/a%20b", "/ä", "/a\tb", "/a:b"]
    sources = [mount_source(name) for name in names]
    assert len(set(sources)) == len(names)
    assert all(source.isascii() and not set(source) & set(", \t\\") for source in sources)
