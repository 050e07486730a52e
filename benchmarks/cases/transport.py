"""Each way to speak with the kernel beside the others, ext4 and `bindfs`: what a request costs, and how many there are.

The same client for all, in C.  Pinned means that server and client share one processor: what both cost, without the
waking of another processor.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path

from benchmarks.cases.transport_bulk import works
from benchmarks.pairs import Outcome, Spread, Table, alternate, output, ratios, run
from benchmarks.transports.places import EXT4, HEADINGS, NAMES, Place, places
from benchmarks.transports.serving import PLAIN_INTAKE, SERVED
from benchmarks.workplace import drop_caches

FLOOR, AIM = 1.8, 3.0
WRITE_FLOOR_US = 5.0
OPENED_FILES = 64
COLD_FILES = 128
"""A round reads each once."""
SOURCE = Path(__file__).parents[1] / "transports" / "client.c"
_COUNTS = {"getattr": 2000, "absent": 1000, "open-read-close": 1000, "cold": COLD_FILES, "create": 100, "write": 2000}
"""How often each is asked in a round: some 50 ms."""
_TITLES = {
    "getattr": "attributes, never cached",
    "absent": "look-up of an absent name",
    "open-read-close": "open, read 4 KiB, close, warm",
    "cold": "the same, caches dropped",
    "create": "create, write 1 KiB, close",
    "write": "write 4 KiB, buffered",
}


@dataclass(slots=True)
class Comparison:
    """The measurements of one run."""

    client: Path
    places: dict[str, Place]
    rounds: int
    numbers: Iterator[int] = field(default_factory=count)
    rows: list[list[str]] = field(default_factory=list)

    def compare(self, title: str, measure: Callable[[Place], float], *, each: int) -> dict[str, list[float]]:
        """Measure all places in turn; add a row of microseconds, and of requests for each of `each` operations."""
        first = {name: place.requests() for name, place in self.places.items()}
        series = alternate(title, self.rounds, *(lambda place=place: measure(place) for place in self.places.values()))
        requests = []
        for name, place in self.places.items():
            before, after = first[name], place.requests()
            if before is not None and after is not None:
                requests.append(f"{(after - before) / each / (self.rounds + 1):.2g}")
        self.rows.append([title, *(_microseconds(values) for values in series), " / ".join(requests)])
        return dict(zip(self.places, series, strict=True))

    def ask(self, kind: str, clients: int, *, pinned: bool) -> dict[str, list[float]]:
        """Let `clients` ask at once; `pinned` is for the title."""
        title = f"{_TITLES[kind]}; {clients} client{'s' * (clients > 1)}{', pinned' * pinned}"
        asked = _COUNTS[kind] // clients

        def measure(place: Place) -> float:
            if kind == "cold":
                drop_caches()
            arguments = (kind, str(place.work), str(asked), str(clients), str(next(self.numbers)))
            return float(output(str(self.client), *arguments).split()[0])

        return self.compare(title, measure, each=asked * clients)


def measure(cache: Path, pairs: int) -> Sequence[Outcome | Table]:
    """All that is in the table, in one run; needs root."""
    client = compiled(cache)
    outcomes: list[Outcome] = []
    with places(cache) as served:
        comparison = Comparison(client, served, pairs)
        for place in served.values():
            _fill(place.work)
        for pinned, clients in product((False, True), (1, 4)):
            with _processors(served, pinned=pinned):
                for kind in _COUNTS:
                    outcomes += _promised(kind, clients, comparison.ask(kind, clients, pinned=pinned), pinned=pinned)
        comparison.rounds = max(2, pairs // 5)
        for work in works(cache, client):
            for place in served.values():
                work.prepare(place)
            comparison.compare(work.title, work.measure, each=work.each)
    head = ["µs, least / median", *(HEADINGS.get(name, name) for name in NAMES), f"requests ({', '.join(SERVED)})"]
    return [*outcomes, Table(head, comparison.rows)]


def _promised(kind: str, clients: int, series: dict[str, list[float]], *, pinned: bool) -> list[Outcome]:
    """Return what floors speak of."""
    where = ", pinned" if pinned else ""
    ours, count = series["kernel"], len(series["kernel"])
    if kind == "getattr" and clients == 1:
        gain = Spread.of(ratios(series[PLAIN_INTAKE], ours))
        peer = str(Spread.of(series[PLAIN_INTAKE]))
        case = f"requests a second of one client, kernel beside pyfuse3 as it comes{where}, us"
        met = gain.median >= FLOOR
        return [Outcome(case, str(Spread.of(ours)), peer, f"{gain}x", f"{FLOOR}x", f"{AIM}x", met, count)]
    if kind == "write" and clients == 1:
        spread = Spread.of(ours)
        case = f"buffered write of 4 KiB, kernel beside ext4{where}, us"
        peer = str(Spread.of(series[EXT4]))
        met = spread.median <= WRITE_FLOOR_US
        return [Outcome(case, str(spread), peer, str(spread), str(WRITE_FLOOR_US), "", met, count)]
    return []


def _microseconds(values: list[float]) -> str:
    return " / ".join(f"{us:,.0f}" if us >= 100 else f"{us:.3g}" for us in (min(values), statistics.median(values)))


def compiled(cache: Path) -> Path:
    """Compile the client and return it."""
    client = cache / "transport-client"
    run("gcc", "-O2", "-o", str(client), str(SOURCE))
    return client


def _fill(work: Path) -> None:
    """Make the files that are read; what rests long enough is sealed."""
    (work / "cold").mkdir()
    for number in range(OPENED_FILES):
        (work / f"file{number}").write_bytes(os.urandom(4096))
    for number in range(COLD_FILES):
        (work / "cold" / f"file{number}").write_bytes(os.urandom(4096))


@contextmanager
def _processors(served: dict[str, Place], *, pinned: bool) -> Iterator[None]:
    """Let clients and servers run on the last processor only, if `pinned`."""
    allowed = os.sched_getaffinity(0)
    chosen = {max(allowed)} if pinned else allowed
    try:
        for place in served.values():
            place.pin(chosen)
        os.sched_setaffinity(0, chosen)
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        for place in served.values():
            place.pin(allowed)
