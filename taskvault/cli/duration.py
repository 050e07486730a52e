"""Durations on the command line: `30s`, `15m`, `12h`, `7d`, `2w`."""

from __future__ import annotations

import re

import click

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

LONGEST_S = 100 * 366 * 86_400
"""A century: more is a slip of the finger."""

_WRITTEN = re.compile(r"([0-9]{1,12})([smhdw])", re.ASCII)


class Duration(click.ParamType[float]):
    """A whole number and a unit; seconds, as a number, when it is given."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds; fail with a sentence that shows how durations are written."""
        if not isinstance(value, str):
            return float(value)
        found = _WRITTEN.fullmatch(value.strip().lower())
        if found is None:
            self.fail(f"{value!r} is no duration; write a whole number and a unit: 30s, 15m, 12h, 7d, 2w.", param, ctx)
        duration_s = int(found[1]) * UNITS_S[found[2]]
        if not 0 < duration_s <= LONGEST_S:
            self.fail(f"{value!r} is not between 1s and a century.", param, ctx)
        return float(duration_s)
