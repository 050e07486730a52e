"""Who keeps a mount from being unmounted is found in /proc."""

from __future__ import annotations

import os
from pathlib import Path

from tvfs.fuse.holders import Holder, holders_of
from tvfs.fuse.unmount import MountHeld


def process(proc: Path, pid: int, **links: str) -> Path:
    directory = proc / str(pid)
    (directory / "fd").mkdir(parents=True)
    (directory / "comm").write_text(f"program-{pid}\n")
    for name, target in links.items():
        (directory / name.replace("fd_", "fd/")).symlink_to(target)
    return directory


def test_every_way_to_hold_a_mount_is_found(tmp_path: Path) -> None:
    process(tmp_path, 1, cwd="/", root="/", exe="/bin/init", fd_0="/dev/null")
    process(tmp_path, 2, cwd="/mnt/v")
    process(tmp_path, 3, cwd="/", fd_0="/dev/null", fd_7="/mnt/v/work/file")
    process(tmp_path, 4, exe="/mnt/v/work/program (deleted)")
    mapped = process(tmp_path, 5)
    (mapped / "maps").write_text(
        "7f00-7f01 rw-p 00000000 00:00 0 \n7f00-7f01 r--s 00000000 00:2d 70      /mnt/v/a map\n"
    )
    process(tmp_path, 6, cwd="/mnt/v2")
    (tmp_path / "self").symlink_to("1")
    assert holders_of("/mnt/v", proc=tmp_path) == [
        Holder(2, "program-2", "/mnt/v"),
        Holder(3, "program-3", "/mnt/v/work/file"),
        Holder(4, "program-4", "/mnt/v/work/program (deleted)"),
        Holder(5, "program-5", "/mnt/v/a map"),
    ]


def test_we_find_ourselves(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w"):
        assert os.getpid() in [holder.pid for holder in holders_of(str(tmp_path))]


def test_the_refusal_names_a_few_and_counts_the_rest() -> None:
    some = [Holder(pid, "vi", f"/mnt/{pid}") for pid in range(1, 8)]
    assert "vi (pid 1: /mnt/1), vi (pid 2" in str(MountHeld("/mnt", some))
    assert "and 2 more;" in str(MountHeld("/mnt", some))
    assert "cannot be seen" in str(MountHeld("/mnt", []))
