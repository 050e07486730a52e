"""`tv status` and `tv stats`."""

from __future__ import annotations

import click
import msgspec

from taskvault.cli.answers import State
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import saved_line, seconds, show, size


@click.command(
    epilog=notes("tv status --json", "0 up and healthy, 3 no daemon answers, 5 it answers and is in trouble.")
)
@json_option
@pass_context
def status(context: Context, as_json: bool) -> int:
    """State of the daemon: where it is mounted, how full the vault is, whether all is well."""
    from taskvault.protocol.messages import GetStatus

    with context.connect() as client:
        found = client.call(GetStatus())
    value = msgspec.convert(found, State, from_attributes=True)
    full = found.used_bytes / found.capacity_bytes if found.capacity_bytes else 0.0
    show(
        as_json,
        value,
        [
            f"{'Up' if found.healthy else 'In trouble: ' + found.trouble}, for {seconds(found.uptime_s)}"
            f" (process {found.pid}, version {found.version})",
            f"vault    {found.home}",
            f"mount    {found.mount or 'none'}",
            f"stored   {size(found.used_bytes)} of {size(found.capacity_bytes)} ({full:.0%})",
            f"entries  {found.entries}",
            f"staged   {found.staged_files} files not yet sealed",
        ],
    )
    return ExitCode.OK if found.healthy else ExitCode.TROUBLE


@click.command(epilog=notes("tv stats", "0, or 3 if no daemon answers."))
@json_option
@pass_context
def stats(context: Context, as_json: bool) -> None:
    """Computing saved, and figures of the daemon by name; docs/reference/statistics.md says what each means."""
    from taskvault.protocol.messages import GetStatistics

    with context.connect() as client:
        figures = client.call(GetStatistics()).figures
    headline = [saved_line(int(figures["runs"]), int(figures["run_hits"]), figures["run_saved_s"]), ""]
    width = max((len(name) for name in figures), default=0)
    show(
        as_json,
        figures,
        headline + [f"{name.ljust(width)}  {_shown(name, value)}" for name, value in sorted(figures.items())],
    )


def _shown(name: str, value: int | float) -> str:
    if name.endswith("_bytes"):
        return f"{value} ({size(value)})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
