"""How long `tv cache get` takes, and what it and reading everything cost beside an archive."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

from benchmarks import trees
from benchmarks.pairs import Outcome, Spread, alternate, ratios, run, seconds
from benchmarks.workplace import Workplace, drop_caches, fresh, read_all, vault


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """The get alone for 1,000 and 100,000 files, beyond `tv status`."""
    # What is left after `tv status` is taken off is smaller than the noise of starting a process: so more pairs.
    pairs = max(pairs, 61)
    small, large = trees.small_files(cache, 1000), trees.small_files(cache, 100_000)
    with vault(cache) as place:
        place.tv("cache", "save", "small", ".", cwd=small)
        place.tv("cache", "save", "large", ".", cwd=large)
        get_small, get_large = _getter(place, "small"), _getter(place, "large")
        status, of_small, of_large = alternate(
            "cache get",
            pairs,
            lambda: seconds(lambda: place.tv("status")),
            lambda: seconds(get_small),
            lambda: seconds(get_large),
        )
    beyond_small = Spread.of([(get - base) * 1e3 for get, base in zip(of_small, status, strict=True)])
    beyond_large = Spread.of([(get - base) * 1e3 for get, base in zip(of_large, status, strict=True)])
    growth = beyond_large.median / max(beyond_small.median, 0.1)
    base = f"status {Spread.of(status).median * 1e3:.0f} ms"
    return [
        Outcome(
            "get of 100,000 files, beyond `tv status`, ms",
            str(beyond_large),
            base,
            str(beyond_large),
            "50",
            "10",
            beyond_large.median <= 50,
            pairs,
        ),
        Outcome(
            "that beside the get of 1,000 files",
            str(beyond_large),
            str(beyond_small),
            f"{growth:.2f}x",
            "1.5x",
            "",
            growth <= 1.5,
            pairs,
        ),
    ]


def measure_reading_large(cache: Path, pairs: int) -> list[Outcome]:
    """Get a tree of 1,000 files of 1 MiB and read every byte, beside unpacking an archive of it and reading that."""
    tree = trees.large_files(cache, 1000, 1 << 20)
    return [_beside_tar(cache, pairs, tree, "get + read 1,000 files of 1 MiB beside tar --zstd -x + read", 1.0, 0.5)]


def measure_reading_small(cache: Path, pairs: int) -> list[Outcome]:
    """The same with 100,000 small files."""
    tree = trees.small_files(cache, 100_000)
    return [_beside_tar(cache, pairs, tree, "get + read 100,000 small files beside tar --zstd -x + read", 4.0, 1.0)]


def _beside_tar(cache: Path, pairs: int, tree: Path, case: str, floor: float, aim: float) -> Outcome:
    packed = trees.archive(tree)
    unpacked = cache / "unpacked"
    with vault(cache) as place:
        place.tv("cache", "save", "tree", ".", cwd=tree)
        get = _getter(place, "tree", then=read_all)

        def get_and_read() -> float:
            drop_caches()
            return seconds(get)

        def unpack() -> float:
            # Else what the last round left in the page cache is recycled here, and there new memory is taken.
            fresh(unpacked).mkdir()
            drop_caches()

            def unpack_and_read() -> None:
                run("tar", "--zstd", "-C", str(unpacked), "-xf", str(packed))
                read_all(unpacked)

            return seconds(unpack_and_read)

        ours, peer = alternate(case, pairs, get_and_read, unpack)
    fresh(unpacked)
    ratio = Spread.of(ratios(ours, peer))
    return Outcome(
        case,
        f"{Spread.of(ours)} s",
        f"{Spread.of(peer)} s",
        f"{ratio}x",
        f"{floor}x",
        f"{aim}x",
        ratio.median <= floor,
        pairs,
    )


def _getter(place: Workplace, key: str, then: Callable[[Path], None] = lambda path: None) -> Callable[[], None]:
    numbers = count()

    def get() -> None:
        target = place.mount / "work" / f"{key}-{next(numbers)}"
        place.tv("cache", "get", key, "--to", str(target))
        then(target)

    return get
