"""What the same tree takes with and without small changes, beside a `restic` repository of the same backups."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks import trees
from benchmarks.pairs import Outcome, run
from benchmarks.workplace import fresh, vault

FLOOR = 1.05
BLOCK = 4096
"""Scattered changes come in blocks of this: what a database or a checkpoint rewrites."""
SHARE = 0.01


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Each tree is saved after the unchanged one, to a vault and to a repository of its own; sizes, so one run."""
    tree = trees.real_tree(cache)
    return [
        _beside_restic(cache, tree, "1 % of its files changed", _change_files),
        _beside_restic(cache, tree, "1 % of its bytes scattered", _scatter),
    ]


def _beside_restic(cache: Path, tree: Path, what: str, change: Callable[[Path], None]) -> Outcome:
    changed = fresh(cache / "space-changed")
    repository = fresh(cache / "space-restic")
    os.environ["RESTIC_PASSWORD"] = "benchmark"
    shutil.copytree(tree, changed, symlinks=True)
    change(changed)
    run("restic", "init", "--repo", str(repository))
    with vault(cache) as place:
        for name, version in (("first", tree), ("second", changed)):
            place.tv("cache", "save", name, ".", cwd=version)
            run("restic", "backup", "--no-cache", "--repo", str(repository), ".", cwd=str(version))
        place.tv("down")
        ours = _disk_bytes(place.home)
    peer = _disk_bytes(repository)
    fresh(changed)
    fresh(repository)
    ratio = ours / peer
    return Outcome(
        f"space of a real tree saved, then with {what}, beside restic, MB",
        f"{ours / 1e6:.0f}",
        f"{peer / 1e6:.0f}",
        f"{ratio:.3f}x",
        f"{FLOOR}x",
        "",
        ratio <= FLOOR,
        1,
    )


def _change_files(tree: Path) -> None:
    """Insert a line somewhere into one file of a hundred: an edit."""
    chance = random.Random(17)
    for path in _files(tree):
        if chance.random() < SHARE:
            content = path.read_bytes()
            at = chance.randrange(len(content) + 1)
            path.write_bytes(content[:at] + b"a line that was not there before\n" + content[at:])


def _scatter(tree: Path) -> None:
    """Overwrite blocks at random places of all bytes of the tree, one block of a hundred."""
    chance = random.Random(19)
    for path in _files(tree):
        size = path.stat().st_size
        with path.open("r+b") as file:
            for offset in range(0, size, BLOCK):
                if chance.random() < SHARE:
                    file.seek(offset)
                    file.write(chance.randbytes(min(BLOCK, size - offset)))


def _files(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def _disk_bytes(directory: Path) -> int:
    """What `du -x` says: allocated, whatever the length."""
    return sum(path.lstat().st_blocks * 512 for path in [directory, *directory.rglob("*")] if not path.is_mount())
