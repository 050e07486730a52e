"""How quickly the mount answers while half of a vault of a million entries is evicted."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.many_entries import filled
from benchmarks.pairs import Outcome
from benchmarks.workplace import TV, Workplace, fresh, processes_of, proportional_bytes, running

ENTRIES = 1_000_000
FILES = 2_000
IDLE_S = 20.0
BUSY_S = 120.0
"""Of the eviction of half of them, which takes much longer beside a client that asks without a pause."""
FLOOR = 5.0


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Uncached `stat` through the mount, idle and during `tv gc --evict`; a million entries were saved before."""
    home = fresh(cache / "vault")
    shutil.copytree(filled(cache, ENTRIES), home)
    with running(home) as place:
        names = _make_files(place)
        idle, _ = _stat_until(names, place, _deadline(IDLE_S))
        evicting = subprocess.Popen(
            [*TV, "--home", str(home), "gc", "--evict", str(_statistics(place)["live_bytes"] // 2), "--json"],
            stdout=subprocess.DEVNULL,
        )
        enough = _deadline(BUSY_S)
        busy, peak_bytes = _stat_until(names, place, lambda: evicting.poll() is not None or enough())
        evicting.terminate()
        evicting.wait()
        evicted = _statistics(place)["evicted_entries"]
    growth = busy[1] / idle[1]
    what = f"{ENTRIES:,} entries"
    return [
        Outcome(
            f"uncached stat on the mount while {evicted:,} of {what} are evicted, p99 (median), us",
            f"{busy[1]:.0f} ({busy[0]:.0f})",
            f"idle {idle[1]:.0f} ({idle[0]:.0f})",
            f"{growth:.2f}x",
            f"{FLOOR}x",
            "",
            growth <= FLOOR,
            len(names),
        ),
        Outcome(
            f"memory (PSS) meanwhile, MiB, {what}", f"{peak_bytes / 2**20:.0f}", "", "", "350", "250",
            peak_bytes <= 350 << 20, 1,
        ),
    ]  # fmt: skip


def _make_files(place: Workplace) -> list[str]:
    directory = place.mount / "work" / "many"
    directory.mkdir()
    names = [str(directory / f"file{number:05d}") for number in range(FILES)]
    for name in names:
        Path(name).write_bytes(b"x")
    random.Random(3).shuffle(names)
    return names


def _stat_until(names: list[str], place: Workplace, ended: Callable[[], bool]) -> tuple[tuple[float, float], int]:
    """Return `(median, p99)` in microseconds, and the most memory that our processes took."""
    times: list[int] = []
    peak_bytes = 0
    while not ended():
        # Forgets names and attributes, so that each stat is a request to the daemon; needs root.
        Path("/proc/sys/vm/drop_caches").write_text("2")
        for name in names:
            began_ns = time.perf_counter_ns()
            os.stat(name)
            times.append(time.perf_counter_ns() - began_ns)
        peak_bytes = max(peak_bytes, sum(map(proportional_bytes, processes_of(place.home))))
    times.sort()
    return (times[len(times) // 2] / 1000, times[len(times) * 99 // 100] / 1000), peak_bytes


def _deadline(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _statistics(place: Workplace) -> dict[str, int]:
    done = subprocess.run([*TV, "--home", str(place.home), "stats", "--json"], capture_output=True, check=True)
    figures: dict[str, int] = json.loads(done.stdout)
    return figures
