"""`tv top`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.output import show

if TYPE_CHECKING:
    from taskvault.cli.answers import Sample
    from taskvault.client import Client


@click.command(epilog=notes("tv top\ntv top --once --json", "0 (also after Ctrl-C), or 3 if no daemon answers."))
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, metavar="SECONDS",
    help="Time between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Print what happened in one interval, and end.")
@json_option
@pass_context
def top(context: Context, interval_s: float, once: bool, as_json: bool) -> None:
    """What the daemon is doing: requests, what is under way, hit rate, throughput, dirty bytes, the slowest calls.

    Live in a terminal; elsewhere one sample after another.  With --json one sample.
    """
    from taskvault.cli.activity_view import lines

    if math.isnan(interval_s):
        raise click.BadParameter("nan is no time", param_hint="'--interval'")
    with context.connect() as client:
        samples = _samples(client, interval_s)
        if once or as_json:
            taken = next(samples)
            show(as_json, taken, lines(taken))
            return
        with suppress(KeyboardInterrupt):  # that is how one leaves it
            _follow(samples, str(context.home))


def _samples(client: Client, interval_s: float) -> Iterator[Sample]:
    from taskvault.cli.activity_sample import sample
    from taskvault.protocol.messages import GetActivity

    before = client.call(GetActivity())
    while True:
        time.sleep(interval_s)
        after = client.call(GetActivity())
        yield sample(before, after)
        before = after


def _follow(samples: Iterator[Sample], home: str) -> None:
    from taskvault.cli.activity_view import lines, screen

    if not sys.stdout.isatty():
        for taken in samples:
            click.echo("\n".join(lines(taken)) + "\n")
        return
    with screen() as drawn:
        for taken in samples:
            drawn.show(taken, home)
