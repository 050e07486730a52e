"""How many requests a call is: counted, not timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.pairs import Outcome
from benchmarks.transports.places import Place, served
from benchmarks.transports.serving import PASSTHROUGH
from benchmarks.workplace import fresh

CALLS = 200
_UNWAITED = {"release", "forget", "batch_forget"}
"""What no program waits for."""
_TRANSPORTS = {PASSTHROUGH: "as root", "kernel": "without passthrough"}
"""How the daemon mounts, and how where passthrough cannot be had."""


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Each call `CALLS` times on a mount that nobody else uses."""
    base = fresh(cache / "filesystem")
    outcomes = []
    for transport, how in _TRANSPORTS.items():
        point = base / transport
        point.mkdir(parents=True)
        with served(base, point, transport) as server:
            outcomes += _count(Place(transport, point / "work", server), how)
    fresh(base)
    return outcomes


def _count(place: Place, how: str) -> list[Outcome]:
    names = [str(place.work / f"file{number}") for number in range(CALLS)]
    absent = str(place.work / "absent")
    _make(str(place.work / "first"))
    made = _each(place, _make, names)
    for call, asked in ((_read, names), (os.stat, names), (_miss, [absent])):
        # What the kernel is to know from then on.
        _each(place, call, asked)
    return [
        _line(f"create, write, close a small file: synchronous requests, {how}", made, 4, 3),
        _line(f"cached stat: requests, {how}", _each(place, os.stat, names), 0, 0),
        _line(f"re-open and re-read a cached file: requests, {how}", _each(place, _read, names), 2, 1, waited=False),
        _line(f"cached negative look-up: requests, {how}", _each(place, _miss, [absent] * CALLS), 0, 0),
    ]


def _each(place: Place, call: Callable[[str], object], names: list[str]) -> dict[str, float]:
    """Return how many requests of each kind one call is; nothing is asked in between by anybody else."""
    before = place.requests_by_kind() or {}
    for name in names:
        call(name)
    after = place.requests_by_kind() or {}
    counted = {kind: (number - before[kind]) / len(names) for kind, number in after.items()}
    return {kind: number for kind, number in counted.items() if number >= 0.05}


def _line(case: str, counted: dict[str, float], floor: int, aim: int, *, waited: bool = True) -> Outcome:
    figure = sum(number for kind, number in counted.items() if not (waited and kind in _UNWAITED))
    kinds = ", ".join(f"{kind} {number:.3g}" for kind, number in counted.items()) or "none"
    return Outcome(case, kinds, "", f"{figure:.2g}", str(floor), str(aim), round(figure, 1) <= floor, CALLS)


def _make(name: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, b"x" * 1000)
    os.close(descriptor)


def _read(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY)
    assert len(os.pread(descriptor, 4096, 0)) == 1000
    os.close(descriptor)


def _miss(name: str) -> None:
    with suppress(FileNotFoundError):
        os.stat(name)
