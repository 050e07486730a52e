"""What whole programs do with a place: listing, `fio`, `tar`, `dd` and `cat`."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import trees
from benchmarks.pairs import output, run, seconds
from benchmarks.transports.places import Place
from benchmarks.workplace import drop_caches, fresh

UNTARRED_FILES = 10_000
LARGE_MIB = 256
FIO_MIB = 64
_LISTED = {1_000: 20, 100_000: 1}
"""How often a directory of so many names is listed in a round."""
_WARM_READINGS = 4
_SETTLING_S = 1.5
"""Between them: sealing and the copies for passthrough are made meanwhile."""


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to be done with each place in turn."""

    title: str
    each: int
    """How many operations one call is."""
    measure: Callable[[Place], float]
    """Returns microseconds an operation."""
    prepare: Callable[[Place], None]


def works(cache: Path, client: Path) -> list[Work]:
    """Return all of it; the inputs are in the cache."""
    archive = trees.plain_archive(trees.small_files(cache, UNTARRED_FILES))
    real = trees.large_files(cache, 1, LARGE_MIB << 20) / "part0000.bin"
    listings = [
        Work(f"list {names:,} names{' again' * warm}", 1 if not warm else times, measure, prepare)
        for names, times in _LISTED.items()
        for warm, measure, prepare in _listing(client, names, times)
    ]
    return [
        *listings,
        Work("fio random read of 4 KiB", FIO_MIB << 8, lambda place: _fio(place, "read"), _nothing),
        Work(
            "fio random write of 4 KiB, synced at the end", FIO_MIB << 8, lambda place: _fio(place, "write"), _nothing
        ),
        Work(f"tar -x of {UNTARRED_FILES:,} small files, a file", UNTARRED_FILES, _untar(archive), _nothing),
        Work("sequential write, synced at the end, a MiB", LARGE_MIB, _write(real), _nothing),
        Work("sequential read, warm, a MiB", LARGE_MIB, _read, lambda place: _settle(place, real)),
    ]


def _listing(
    client: Path, names: int, times: int
) -> list[tuple[bool, Callable[[Place], float], Callable[[Place], None]]]:
    def prepare(place: Place) -> None:
        directory = place.work / f"names{names}"
        directory.mkdir()
        for number in range(names):
            (directory / f"name{number:06d}").symlink_to("x")

    def ask(place: Place, count: int) -> float:
        return float(output(str(client), "list", str(place.work / f"names{names}"), str(count), "1", "0").split()[0])

    def first(place: Place) -> float:
        drop_caches()
        return ask(place, 1)

    return [(False, first, prepare), (True, lambda place: ask(place, times), _nothing)]


def _fio(place: Place, what: str) -> float:
    """One pass in random order over a file whose pages were dropped before."""
    printed = output(
        "fio", "--name=blocks", f"--filename={place.work / 'fio'}", f"--size={FIO_MIB}M", "--bs=4k", f"--rw=rand{what}",
        "--ioengine=psync", "--end_fsync=1", "--randseed=1", "--output-format=json",
    )  # fmt: skip
    figures = json.loads(printed)["jobs"][0]
    return float(figures["job_runtime"]) * 1000 / (FIO_MIB << 8)


def _untar(archive: Path) -> Callable[[Place], float]:
    def measure(place: Place) -> float:
        target = fresh(place.work / "untarred")
        target.mkdir()
        return seconds(lambda: run("tar", "-C", str(target), "-xf", str(archive))) * 1e6 / UNTARRED_FILES

    return measure


def _write(source: Path) -> Callable[[Place], float]:
    def measure(place: Place) -> float:
        target = place.work / "written"
        target.unlink(missing_ok=True)
        command = ("dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync")
        return seconds(lambda: run(*command)) * 1e6 / LARGE_MIB

    return measure


def _read(place: Place) -> float:
    return seconds(lambda: run("cat", str(place.work / "read"))) * 1e6 / LARGE_MIB


def _settle(place: Place, source: Path) -> None:
    shutil.copyfile(source, place.work / "read")
    for _ in range(_WARM_READINGS):
        time.sleep(_SETTLING_S)
        _read(place)


def _nothing(place: Place) -> None:
    pass
