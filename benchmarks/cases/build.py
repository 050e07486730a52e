"""The demonstration's build, cold, on the mount beside ext4."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

from benchmarks.pairs import Outcome, Spread, alternate, ratios, run, seconds
from benchmarks.workplace import fresh, vault
from taskvault.demo import BUILD, Demo, fetched_source

CASE = "demonstration build, cold, on the mount beside ext4"
FLOOR, AIM = 1.3, 1.1


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """The demonstration's build, as every release is measured: each starts from a fresh copy of the source."""
    source = fetched_source(Demo(cache))
    numbers = count()
    with vault(cache) as place:

        def build(directory: Path) -> float:
            shutil.copytree(source, directory)
            return seconds(lambda: run(*BUILD, cwd=str(directory)))

        ours, peer = alternate(
            "cold build",
            pairs,
            lambda: build(place.mount / "work" / f"build-{next(numbers)}"),
            lambda: build(fresh(cache / "build")),
        )
    fresh(cache / "build")
    ratio = Spread.of(ratios(ours, peer))
    met = ratio.median <= FLOOR
    times = (f"{Spread.of(ours)} s", f"{Spread.of(peer)} s")
    return [Outcome(CASE, *times, f"{ratio}x", f"{FLOOR}x", f"{AIM}x", met, pairs)]
