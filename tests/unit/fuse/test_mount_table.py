"""The mount table is read without touching what is mounted."""

from __future__ import annotations

from pathlib import Path

from tvfs.fuse.mount_table import mounts_at, mounts_of, without_touching

TABLE = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:45 / /srv/my\040vault rw,nosuid,nodev - fuse.taskvault taskvault:/home/me/a%20b rw,user_id=0
31 30 0:46 / /srv/my\040vault rw shared:7 master:2 - tmpfs over\134it rw
32 22 0:47 / /srv/my rw - tmpfs tmpfs rw
a line that nobody understands
"""


def test_what_is_mounted_comes_in_order_with_its_names_in_plain() -> None:
    below, above = mounts_at("/srv/my vault", TABLE)
    assert (below.device, below.type, below.source) == ("0:45", "fuse.taskvault", "taskvault:/home/me/a%20b")
    assert (above.device, above.type, above.source) == ("0:46", "tmpfs", "over\\it")
    assert below.fuse_connection == "45"


def test_only_the_very_point_counts() -> None:
    assert mounts_at("/srv", TABLE) == []
    assert [entry.device for entry in mounts_at("/srv/my", TABLE)] == ["0:47"]


def test_a_filesystem_is_found_wherever_it_is_mounted() -> None:
    assert [entry.point for entry in mounts_of("0:47", TABLE)] == ["/srv/my"]


def test_the_root_is_mounted() -> None:
    assert mounts_at("/")


def test_symlinks_on_the_way_and_at_the_end_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "directory").symlink_to("real")
    (tmp_path / "end").symlink_to("directory/mnt")
    (tmp_path / "missing").symlink_to("real/not there")
    assert without_touching(f"{tmp_path}/directory/mnt/") == f"{tmp_path}/real/mnt"
    assert without_touching(f"{tmp_path}/end") == f"{tmp_path}/real/mnt"
    assert without_touching(f"{tmp_path}/missing") == f"{tmp_path}/real/not there"
    assert without_touching(f"{tmp_path}/real/../real") == f"{tmp_path}/real"


def test_a_symlink_to_itself_ends_somewhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert without_touching(f"{tmp_path}/loop") == f"{tmp_path}/loop"
