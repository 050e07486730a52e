"""From two series to a line of the table."""

from __future__ import annotations

from benchmarks.pairs import Outcome, Spread, ratios


def no_slower(case: str, ours: list[float], theirs: list[float], *, floor: float, aim: float) -> Outcome:
    """Seconds beside seconds: the figure is how many times as long we take."""
    ratio = Spread.of(ratios(ours, theirs))
    return _line(case, ours, theirs, ratio, (f"{floor}x", f"{aim}x"), met=ratio.median <= floor)


def faster(case: str, ours: list[float], theirs: list[float], *, floor: float, aim: float) -> Outcome:
    """Seconds beside seconds: the figure is how many times as long they take."""
    ratio = Spread.of(ratios(theirs, ours))
    return _line(case, ours, theirs, ratio, (f"{floor}x faster", f"{aim}x"), met=ratio.median >= floor)


def _line(
    case: str, ours: list[float], theirs: list[float], ratio: Spread, bounds: tuple[str, str], *, met: bool
) -> Outcome:
    return Outcome(case, f"{Spread.of(ours)} s", f"{Spread.of(theirs)} s", f"{ratio}x", *bounds, met, len(ours))
