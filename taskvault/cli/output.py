"""How answers look: one JSON value with `--json`, plain text otherwise; sizes, times and tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

import click
import msgspec

Json = object
"""An answer (see `taskvault.cli.answers`), or anything that `json.dumps` takes."""


def show(as_json: bool, value: Json, text: str | Iterable[str]) -> None:
    """Print the answer in one of its two forms."""
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(value), indent=2))
        return
    for line in [text] if isinstance(text, str) else text:
        click.echo(line)


def size(count: float) -> str:
    """Return a number of bytes for people: `1.4 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def seconds(duration_s: float) -> str:
    """Return a duration for people: `340 ms`, `4.1 s`, `3 min 20 s`, `2 h 5 min`."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, rest = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def saved_line(runs: int, hits: int, saved_s: float) -> str:
    """Return what the vault is there for, as one line: computing saved by replays."""
    if not runs:
        return "No runs yet: prefix a command with `tv run --`."
    return f"{seconds(saved_s)} of computing saved: {hits} of {runs} runs were replayed ({hits / runs:.0%})"


def moment(time_ns: int) -> str:
    """Return a time since 1970 as local date and time."""
    return datetime.fromtimestamp(time_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")


def table(rows: Iterable[Sequence[str]], header: Sequence[str]) -> Iterable[str]:
    """Yield lines with columns under a header; nothing at all for no rows."""
    listed = [list(row) for row in rows]
    if not listed:
        return
    widths = [max(len(row[column]) for row in [list(header), *listed]) for column in range(len(header))]
    for row in [list(header), *listed]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
