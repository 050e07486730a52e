"""One long file, written and synced."""

from __future__ import annotations

from pathlib import Path

from benchmarks import trees
from benchmarks.filesystem.many_files import few
from benchmarks.filesystem.peers import OURS, Peer, peers
from benchmarks.pairs import Outcome, Spread, alternate, ratios, run, seconds
from benchmarks.transports.places import BINDFS

SIZE = 1 << 30
FLOOR = 0.7


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """By `dd`, in pieces of 1 MiB."""
    source = trees.real_file(cache, SIZE)
    run("cat", str(source))

    def write(peer: Peer) -> float:
        peer.rest()
        target = peer.work / "written"
        target.unlink(missing_ok=True)
        peer.rest()
        return seconds(lambda: run("dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync"))

    with peers(cache, OURS, BINDFS) as served:
        ours, theirs = alternate(
            "sequential write",
            few(pairs),
            *(lambda peer=peer: write(peer) for peer in served.values()),  # type: ignore[misc]
        )
    gain = Spread.of(ratios(theirs, ours))
    rates = [str(Spread.of([SIZE / 1e6 / each for each in series])) for series in (ours, theirs)]
    case = "sequential write of 1 GiB with fsync, beside bindfs, MB/s"
    return [Outcome(case, rates[0], rates[1], f"{gain}x", f"{FLOOR}x", "1.0x", gain.median >= FLOOR, len(ours))]
