"""What single calls take: uncached, while somebody saves, and with several clients."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks import trees
from benchmarks.cases.transport import COLD_FILES, OPENED_FILES, compiled
from benchmarks.filesystem.peers import OURS, S3QL, Peer, S3qlMissing, peers, pinned, s3ql_version
from benchmarks.pairs import Outcome, Spread, Table, alternate, output, ratios
from benchmarks.transports.places import BINDFS, EXT4
from benchmarks.workplace import TV, drop_caches, fresh

LARGE_BYTES = 256 << 20
RANDOM_READS = 2_000
STATS = 3_000
SAVED_FILES = 256
CLIENTS = (1, 2, 4)
_ASKED = {"getattr": 4000, "open-read-close": 2000, "create": 400, "write": 4000}
_TITLES = {
    "cold": "open, first touch (4 KiB), close; caches dropped",
    "random": "4 KiB random read of 256 MiB; caches dropped",
}
_numbers = count(1)


def measure_uncached(cache: Path, pairs: int) -> Sequence[Outcome | Table]:
    """Published, beside all; S3QL keeps what was written in files of its own, uncompressed."""
    client = compiled(cache)
    source = trees.large_files(cache, 1, LARGE_BYTES) / "part0000.bin"
    names = [OURS, EXT4, BINDFS]
    heading = "S3QL: not installed"
    try:
        heading = f"S3QL {s3ql_version(cache)}"
        names.append(S3QL)
    except S3qlMissing as exc:
        heading += f" ({exc})"
    rows = []
    with peers(cache, *names) as served:
        for peer in served.values():
            _fill(peer.work)
            shutil.copyfile(source, peer.work / "large")
        for peer in served.values():
            peer.rest()
        for to_one in (False, True):
            with pinned(served, to_one=to_one):
                for kind, title in _TITLES.items():
                    rows.append([f"{title}{', pinned' * to_one}", *_percentiles(client, kind, served, pairs)])
    return [Table(["µs, p50 / p99, medians", *names[:3], heading], rows)]


def measure_stat_while_saving(cache: Path, pairs: int) -> list[Outcome]:
    """Attributes that the kernel must ask us for, while `tv cache save` brings in new files as fast as it can."""
    client = compiled(cache)
    outcomes = []
    with peers(cache, OURS) as served:
        peer = served[OURS]
        assert peer.home is not None

        def idle() -> float:
            peer.rest()
            return _ask(client, peer, "getattr", STATS)[2]

        def busy() -> float:
            with _saving(cache, peer.home) as is_saving:
                return statistics.median(_until(is_saving, lambda: _ask(client, peer, "getattr", STATS // 10)[2]))

        for to_one in (False, True):
            with pinned(served, to_one=to_one):
                label = f"stat while saving{', pinned' * to_one}"
                quiet, loud = alternate(label, pairs, idle, busy)
            growth = Spread.of(ratios(loud, quiet))
            outcomes.append(
                Outcome(
                    f"uncached stat while another process saves, p99, us{', pinned' * to_one}",
                    str(Spread.of(loud)), f"idle {Spread.of(quiet)}", f"{growth}x", "5.0x", "2.0x",
                    growth.median <= 5.0, len(loud),
                )
            )  # fmt: skip
    return outcomes


def measure_clients(cache: Path, pairs: int) -> list[Outcome]:
    """Calls a second of all clients together, beside those of one."""
    client = compiled(cache)
    outcomes = []
    with peers(cache, OURS) as served:
        peer = served[OURS]
        _fill(peer.work)
        for to_one in (False, True):
            with pinned(served, to_one=to_one):
                for kind, asked in _ASKED.items():
                    outcomes += _by_several(f"{kind}{', pinned' * to_one}", client, peer, kind, asked, pairs)
    return outcomes


def _by_several(label: str, client: Path, peer: Peer, kind: str, asked: int, pairs: int) -> list[Outcome]:
    measures = [lambda n=n: _ask(client, peer, kind, asked // n, n)[0] for n in CLIENTS]  # type: ignore[misc]
    one, *others = alternate(f"{label} by 1, 2 and 4", pairs, *measures)
    outcomes = []
    for clients, several in zip(CLIENTS[1:], others, strict=True):
        gain = Spread.of(ratios(one, several))
        case = f"{label}: throughput of {clients} clients beside 1, us a call"
        met = gain.median >= 1.0
        outcomes.append(
            Outcome(case, str(Spread.of(several)), f"1: {Spread.of(one)}", f"{gain}x", "1.0x", "grows", met, pairs)
        )
    return outcomes


def _percentiles(client: Path, kind: str, served: dict[str, Peer], times: int) -> list[str]:
    found: dict[str, list[list[float]]] = {name: [] for name in served}

    def ask(peer: Peer) -> float:
        drop_caches()
        figures = _ask(client, peer, kind, COLD_FILES if kind == "cold" else RANDOM_READS)
        found[peer.name].append(figures)
        return figures[1]

    alternate(_TITLES[kind], times, *(lambda peer=peer: ask(peer) for peer in served.values()))  # type: ignore[misc]
    return [
        " / ".join(f"{statistics.median(each[at] for each in found[name][1:]):,.0f}" for at in (1, 2))
        for name in served
    ]


def _ask(client: Path, peer: Peer, kind: str, asked: int, clients: int = 1) -> list[float]:
    """Return microseconds: of all divided by their number, median, 99th percentile."""
    return [float(each) for each in output(
        str(client), kind, str(peer.work), str(asked), str(clients), str(next(_numbers))
    ).split()]  # fmt: skip


def _fill(work: Path) -> None:
    (work / "cold").mkdir()
    for number in range(OPENED_FILES):
        (work / f"file{number}").write_bytes(os.urandom(4096))
    for number in range(COLD_FILES):
        (work / "cold" / f"file{number}").write_bytes(os.urandom(4096))


@contextmanager
def _saving(cache: Path, home: Path | None) -> Iterator[Callable[[], bool]]:
    """Save files that the vault has never seen; yields what says whether that is going on."""
    tree = fresh(cache / "to-save")
    tree.mkdir()
    text = b"%d, some text that is easy to compress;" * 4096
    for number in range(SAVED_FILES):
        (tree / f"part{number}").write_bytes(os.urandom(512 << 10) + text)
    # The second half of a run is as good as its first, but for the last milliseconds, in which little is saved.
    saving = subprocess.Popen(
        [*TV, "--home", str(home), "cache", "save", f"saved-{next(_numbers)}", "to-save"],
        cwd=cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield lambda: saving.poll() is None
        if saving.wait():
            raise RuntimeError("tv cache save failed")
    finally:
        saving.kill()
        saving.wait()
        fresh(tree)


def _until(goes_on: Callable[[], bool], measure: Callable[[], float]) -> list[float]:
    found = [measure()]
    while True:
        figure = measure()
        if not goes_on():
            return found
        found.append(figure)
