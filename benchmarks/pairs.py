"""Alternating pairs of whole-process measurements, and what is said about them.

Two things are timed in turn, A B A B …, so that a drift of the machine's speed meets both.  What is quoted is the
median of the ratios pair by pair, with the quartiles as spread.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of one series."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarise at least two values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the table of results."""

    case: str
    """What was measured."""
    ours: str
    peer: str
    figure: str
    """The number that the floor speaks of, with its spread."""
    floor: str
    aim: str
    met: bool | None
    """Whether the floor was met; None for lines that only inform."""
    pairs: int


@dataclass(frozen=True, slots=True)
class Table:
    """What does not fit into a line of the table of results: several peers at once."""

    head: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        head, *rows = (f"| {' | '.join(cells)} |" for cells in [self.head, *self.rows])
        return "\n".join([head, "|---" * len(self.head) + "|", *rows])


def seconds(action: Callable[[], object]) -> float:
    """Return the wall time of one call, in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def run(*command: str, cwd: str | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end with its output thrown away; raise with its error output if it fails."""
    _run(command, cwd, subprocess.DEVNULL, env)


def output(*command: str) -> str:
    """Run a command to its end and return what it printed; raise with its error output if it fails."""
    printed: str = _run(command, None, subprocess.PIPE).stdout.decode()
    return printed


def _run(
    command: tuple[str, ...], cwd: str | None, stdout: int, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done


def alternate(label: str, count: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Call each measure once as a warm-up, then all in turn `count` times; return one series a measure."""
    for measure in measures:
        measure()
    series: list[list[float]] = [[] for _ in measures]
    for number in range(1, count + 1):
        print(f"\r  {label}: pair {number} of {count} ", end="", file=sys.stderr, flush=True)
        for measure, values in zip(measures, series, strict=True):
            values.append(measure())
    print(file=sys.stderr)
    return series


def ratios(ours: list[float], peers: list[float]) -> list[float]:
    """Ratio ours / peer, pair by pair."""
    return [a / b for a, b in zip(ours, peers, strict=True)]
