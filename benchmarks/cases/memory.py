"""Memory of all our processes while 5 GiB are saved and 100,000 files are listed and read."""

from __future__ import annotations

import threading
from pathlib import Path

from benchmarks import trees
from benchmarks.pairs import Outcome, run
from benchmarks.workplace import Workplace, processes_of, proportional_bytes, read_all, vault

SAMPLE_S = 0.1


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """One run: the greatest sum of proportional set sizes, sampled ten times a second."""
    large, small = trees.large_files(cache, 80, 64 << 20, seed=13), trees.small_files(cache, 100_000)
    with vault(cache) as place:
        with _Peak(place) as saving:
            place.tv("cache", "save", "large", ".", cwd=large)
        place.tv("cache", "save", "small", ".", cwd=small)
        with _Peak(place) as reading:
            target = place.mount / "work" / "small"
            place.tv("cache", "get", "small", "--to", str(target))
            run("ls", "-lR", str(target))
            read_all(target)
    peak = max(saving.mebibytes, reading.mebibytes)
    detail = f"saving {saving.mebibytes:.0f}, listing and reading {reading.mebibytes:.0f}"
    return [Outcome("peak memory (PSS), MiB", detail, "", f"{peak:.0f}", "350", "250", peak <= 350, 1)]


class _Peak:
    """The greatest sum seen while the block ran."""

    def __init__(self, place: Workplace) -> None:
        self._home = place.home
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.mebibytes = 0.0

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            total = sum(map(proportional_bytes, processes_of(self._home)))
            self.mebibytes = max(self.mebibytes, total / 2**20)
