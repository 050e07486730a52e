"""How `tv top` looks: lines of text once, a screen that is drawn anew in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from taskvault.cli.answers import LiveRequest, OperationRate, Sample
from taskvault.cli.output import size, table

if TYPE_CHECKING:
    from rich.console import RenderableType

LIVE_SHOWN = 10
_RATE_HEADER = ("request", "per second", "mean", "slowest (1 min)")


class Screen(Protocol):
    """A terminal that shows one sample after another."""

    def show(self, sample: Sample, home: str) -> None:
        """Draw."""
        ...


def lines(sample: Sample) -> Iterator[str]:
    """Yield the sample as text."""
    yield summary(sample)
    yield from table(map(_row, sample.operations), _RATE_HEADER) or ["no requests"]
    slow = [rate for rate in sample.slowest if rate.slowest_s >= 0.001]
    if slow:
        yield "slowest of the last minute: " + ", ".join(f"{rate.name} {duration(rate.slowest_s)}" for rate in slow[:5])
    yield from (f"under way for {duration(live.age_s)}: {live.name}, {live.subject}" for live in _oldest(sample))


def summary(sample: Sample) -> str:
    """Return the figures that are not of one kind of request."""
    hit_rate = "no look-ups yet" if sample.hit_rate is None else f"{sample.hit_rate:.0%} hits"
    return (
        f"{sum(rate.per_s for rate in sample.operations):.0f} requests/s · {hit_rate}"
        f" · read {size(sample.read_bytes_per_s)}/s · written {size(sample.written_bytes_per_s)}/s"
        f" · {size(sample.dirty_bytes)} dirty · {sample.open_files} open files · {sample.connections} connections"
    )


def duration(duration_s: float) -> str:
    """Return a short time: `12 µs`, `3.4 ms`, `1.2 s`."""
    if duration_s < 0.001:
        return f"{duration_s * 1e6:.0f} µs"
    return f"{duration_s * 1000:.1f} ms" if duration_s < 1 else f"{duration_s:.1f} s"


@contextmanager
def screen() -> Iterator[Screen]:
    """Take over the terminal; it is as it was when the block is left, however that happens."""
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        yield _RichScreen(live.update)


class _RichScreen:
    def __init__(self, update: _Update) -> None:
        self._update = update

    def show(self, sample: Sample, home: str) -> None:
        """Draw."""
        self._update(_drawn(sample, home), refresh=True)


class _Update(Protocol):
    def __call__(self, renderable: RenderableType, *, refresh: bool) -> None: ...


def _drawn(sample: Sample, home: str) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rates = Table(*_RATE_HEADER, box=None, pad_edge=False)
    for column in rates.columns[1:]:
        column.justify = "right"
    for rate in sample.operations:
        rates.add_row(*_row(rate))
    slow = Table("slowest of the last minute", "", box=None, pad_edge=False)
    for rate in sample.slowest:
        slow.add_row(rate.name, duration(rate.slowest_s))
    live = Table("under way", "for", "about", box=None, pad_edge=False)
    for request in _oldest(sample):
        live.add_row(request.name, duration(request.age_s), Text(request.subject))
    heading = Text(f"{home} · every {sample.interval_s:.1f} s · Ctrl-C ends", style="bold")
    return Group(heading, Text(summary(sample)), "", live, "", slow, "", rates)


def _row(rate: OperationRate) -> tuple[str, str, str, str]:
    return rate.name, f"{rate.per_s:.1f}", duration(rate.mean_s), duration(rate.slowest_s)


def _oldest(sample: Sample) -> Iterable[LiveRequest]:
    return sample.live[:LIVE_SHOWN]
