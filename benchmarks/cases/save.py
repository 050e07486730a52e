"""Throughput of `tv cache save` of a real tree beside `restic backup`."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import trees
from benchmarks.pairs import Outcome, Spread, alternate, ratios, run, seconds
from benchmarks.workplace import fresh, vault


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Each save goes to an empty vault, each backup to an empty repository; the tree is in the page cache for both."""
    tree = trees.real_tree(cache)
    size = sum(entry.lstat().st_size for entry in tree.rglob("*") if entry.is_file() and not entry.is_symlink())
    repository = cache / "restic"
    os.environ["RESTIC_PASSWORD"] = "benchmark"

    def save() -> float:
        with vault(cache) as place:
            return seconds(lambda: place.tv("cache", "save", "tree", ".", cwd=tree))

    def backup() -> float:
        fresh(repository)
        run("restic", "init", "--repo", str(repository))
        return seconds(lambda: run("restic", "backup", "--no-cache", "--repo", str(repository), ".", cwd=str(tree)))

    ours, peer = alternate("cache save beside restic", pairs, save, backup)
    fresh(repository)
    ratio = Spread.of(ratios(peer, ours))
    megabytes = size / 1e6
    return [
        Outcome(
            f"save of a real tree of {size / 2**30:.2f} GiB beside restic backup, MB/s",
            str(Spread.of([megabytes / t for t in ours])),
            str(Spread.of([megabytes / t for t in peer])),
            f"{ratio}x",
            "0.8x",
            "2x",
            ratio.median >= 0.8,
            pairs,
        )
    ]
