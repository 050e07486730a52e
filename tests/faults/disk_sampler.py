"""Watches what a directory takes of the disk, every few milliseconds, from a process of its own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL_S = 0.003


class Sampler:
    """The highest value so far, known when the watching has ended."""

    def __init__(self) -> None:
        self.highest_bytes = 0
        self.samples = 0
        self.at_highest = ""


@contextmanager
def sampled(home: Path) -> Iterator[Sampler]:
    """Watch for the length of the block."""
    sampler = Sampler()
    watching = subprocess.Popen(
        [sys.executable, "-S", __file__, home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "ready\n"
        yield sampler
    finally:
        said, _ = watching.communicate("")
        highest, samples, sampler.at_highest = said.split(maxsplit=2)
        sampler.highest_bytes, sampler.samples = int(highest), int(samples)


def allocated(home: str) -> tuple[int, dict[str, int]]:
    """What `du -x --block-size=1` says, without the mount point; in all, and by name below the directory."""
    total = os.lstat(home).st_blocks * 512
    parts: dict[str, int] = {}
    for entry in os.scandir(home):
        if entry.name == "mnt":
            continue
        part = _below(entry.path)
        parts[entry.name] = part
        total += part
    return total, parts


def _below(path: str) -> int:
    try:
        total = os.lstat(path).st_blocks * 512
        if os.path.isdir(path):
            total += sum(_below(entry.path) for entry in os.scandir(path))
    except FileNotFoundError:  # it went while we looked
        return 0
    return total


def main(home: str) -> None:
    """Sample until stdin is closed, then print the highest value, how many samples there were, and what it was of."""
    highest, samples, at_highest = 0, 0, {"": 0}
    print("ready", flush=True)
    while not select.select([0], [], [], 0)[0]:
        total, parts = allocated(home)
        samples += 1
        if total > highest:
            highest, at_highest = total, parts
        time.sleep(INTERVAL_S)
    print(highest, samples, {name: f"{size / (1 << 20):.1f} MiB" for name, size in at_highest.items()})


if __name__ == "__main__":
    main(sys.argv[1])
