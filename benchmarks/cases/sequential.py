"""Sequential reading through the mount: cold beside `zstd -dc`, warm beside ext4."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import trees
from benchmarks.pairs import Outcome, Spread, alternate, ratios, run, seconds
from benchmarks.workplace import drop_caches, vault

SIZE = 1 << 30


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """The same gibibyte of real bytes for all."""
    plain = trees.real_file(cache, SIZE)
    packed = plain.with_suffix(".tar.zst")
    if not packed.exists():
        run("zstd", "-q", str(plain), "-o", str(packed))

    def cold_zstd() -> float:
        drop_caches()
        return seconds(lambda: run("sh", "-c", 'zstd -dc "$1" >/dev/null', "sh", str(packed)))

    # Without copies of what was read before, so that each reading is as the first.
    with _mounted(cache, plain, TASKVAULT_MOUNT_PASSTHROUGH="false") as mounted:
        first_ours, first_peer = alternate("first sequential read", pairs, lambda: _cold(mounted), cold_zstd)
    with _mounted(cache, plain) as mounted:
        again_ours, again_peer = alternate("cold sequential read again", pairs, lambda: _cold(mounted), cold_zstd)
        run("cat", str(plain))
        warm_ours, warm_peer = alternate(
            "warm sequential read",
            max(pairs, 31),
            lambda: seconds(lambda: run("cat", str(mounted))),
            lambda: seconds(lambda: run("cat", str(plain))),
        )
        sum_ours, sum_peer = alternate(
            "warm sha256sum",
            pairs,
            lambda: seconds(lambda: run("sha256sum", str(mounted))),
            lambda: seconds(lambda: run("sha256sum", str(plain))),
        )
    first, again = Spread.of(ratios(first_peer, first_ours)), Spread.of(ratios(again_peer, again_ours))
    warm = Spread.of(ratios(warm_peer, warm_ours))
    work = Spread.of(ratios(sum_peer, sum_ours))
    return [
        _line("sequential read, caches dropped, beside zstd -dc, MB/s", first_ours, first_peer, first, (0.4, 0.6)),
        _line("the same of a file that is read often", again_ours, again_peer, again, (0.4, 0.6)),
        _line("sequential read (cat), warm, beside ext4, MB/s", warm_ours, warm_peer, warm, (0.9, 1.0)),
        _line("the same by sha256sum, warm, beside ext4, MB/s", sum_ours, sum_peer, work, (0.9, 1.0)),
    ]


@contextmanager
def _mounted(cache: Path, plain: Path, **environment: str) -> Iterator[Path]:
    """Yield where the file is in a vault's mount; the daemon has these variables."""
    os.environ |= environment
    try:
        with vault(cache) as place:
            place.tv("cache", "save", "file", plain.name, cwd=plain.parent)
            place.tv("cache", "get", "file", "--to", str(place.mount / "work" / "read"))
            yield place.mount / "work" / "read" / plain.name
    finally:
        for name in environment:
            del os.environ[name]


def _cold(mounted: Path) -> float:
    drop_caches()
    return seconds(lambda: run("sh", "-c", 'cat "$1" >/dev/null', "sh", str(mounted)))


def _line(case: str, ours: list[float], peer: list[float], ratio: Spread, bounds: tuple[float, float]) -> Outcome:
    floor, aim = bounds
    rates = [str(Spread.of([SIZE / 1e6 / t for t in series])) for series in (ours, peer)]
    return Outcome(case, rates[0], rates[1], f"{ratio}x", f"{floor}x", f"{aim}x", ratio.median >= floor, len(ours))
