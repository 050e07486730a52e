"""`tv gc`."""

from __future__ import annotations

import click

from taskvault.cli.answers import GarbageCollected
from taskvault.cli.byte_count import ByteCount
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import show, size

TIMEOUT_S = 6 * 3600.0
"""Compaction of a vault of 1 TiB that is dead all over takes about two hours."""


@click.command(
    epilog=notes(
        "tv gc\ntv gc --evict 2G --json",
        "0, 1 if --check found a difference, 3 if no daemon answers, 5 if the vault is in trouble.",
    )
)
@click.option("--evict", "evict_bytes", type=ByteCount(), default=0, metavar="SIZE", help="Evict so much beside.")
@click.option("--check", is_flag=True, help="Compare the counts of references with what is reachable.")
@json_option
@pass_context
def gc(context: Context, evict_bytes: int, check: bool, as_json: bool) -> int:
    """Remove what has expired and what nothing wants any more, and compact packs.

    The daemon does all of it by itself in the background; this does it now, and completely.  With --evict, entries that
    are not pinned leave too, those first that the eviction policy ranks lowest, until about SIZE of content has gone.
    """
    from taskvault.cli.progress import waiting
    from taskvault.protocol.messages import CollectGarbage

    with context.connect() as client, waiting("collecting garbage"):
        done = client.call(CollectGarbage(evict_bytes, check), timeout_s=TIMEOUT_S)
    value = GarbageCollected(
        expired=done.expired,
        evicted=done.evicted,
        objects=done.objects,
        freed_bytes=done.freed_bytes,
        moved_bytes=done.moved_bytes,
        findings=done.findings,
    )
    lines = [
        f"freed    {size(done.freed_bytes)} of packs",
        f"expired  {done.expired} entries",
        f"evicted  {done.evicted} entries and files",
        f"let go   {done.objects} chunks, manifests and trees",
        f"moved    {size(done.moved_bytes)} to new packs",
    ]
    if check:
        lines += done.findings or ["checked  every count is the number of references"]
    show(as_json, value, lines)
    return ExitCode.NO if done.findings else ExitCode.OK
