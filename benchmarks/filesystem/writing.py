"""One long file, written and synced."""

from __future__ import annotations

from pathlib import Path

from benchmarks import trees
from benchmarks.filesystem.peers import OURS, Peer, peers, pinned
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

    outcomes = []
    with peers(cache, OURS, BINDFS) as served:
        for to_one in (False, True):
            with pinned(served, to_one=to_one):
                ours, theirs = alternate(
                    f"sequential write{', pinned' * to_one}",
                    pairs,
                    *(lambda peer=peer: write(peer) for peer in served.values()),  # type: ignore[misc]
                )
            gain = Spread.of(ratios(theirs, ours))
            rates = [str(Spread.of([SIZE / 1e6 / each for each in series])) for series in (ours, theirs)]
            case = f"sequential write of 1 GiB with fsync, beside bindfs, MB/s{', pinned' * to_one}"
            met = gain.median >= FLOOR
            outcomes.append(Outcome(case, rates[0], rates[1], f"{gain}x", f"{FLOOR}x", "1.0x", met, len(ours)))
    return outcomes
