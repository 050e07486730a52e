"""Numbers of bytes on the command line: `4096`, `512K`, `64M`, `10G`, `1.5T`."""

from __future__ import annotations

import re

import click

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

_WRITTEN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kmgt]?)(?:i?b)?", re.ASCII)


class ByteCount(click.ParamType[int]):
    """A number and a unit of 1,024; bytes, as a number, when it is given."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes; fail with a sentence that shows how sizes are written."""
        if not isinstance(value, str):
            return int(value)
        found = _WRITTEN.fullmatch(value.strip().lower())
        if found is None:
            self.fail(f"{value!r} is no size; write a number and a unit: 512K, 64M, 10G, 1.5T.", param, ctx)
        return int(float(found[1]) * UNITS[found[2]])
