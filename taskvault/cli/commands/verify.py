"""`tv verify`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from taskvault.cli.answers import ContentVerified
from taskvault.cli.byte_count import ByteCount
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import seconds, show, size

if TYPE_CHECKING:
    from taskvault.client import Client
    from taskvault.protocol.messages import Verified

STEP_BYTES = 8 << 20
"""Asked for at a time, unless a tenth of a second of the rate is less."""
HOLDERS_TIMEOUT_S = 3600.0


@click.command(
    epilog=notes(
        "tv verify --rate 100M",
        "0 all content is what was stored, 1 some is not (it is in quarantine), 3 no daemon answers.",
    )
)
@click.option("--rate", "rate_bytes", type=ByteCount(), metavar="SIZE", help="Read no more than this a second.")
@json_option
@pass_context
def verify(context: Context, rate_bytes: int | None, as_json: bool) -> int:
    """Read all content from the disk and compare it with its hashes, while the daemon serves.

    What is bad is put in quarantine: it is never given to anybody, and saving the same content again heals it.
    """
    from taskvault.cli.progress import waiting
    from taskvault.protocol.messages import NameHolders

    began_s = time.monotonic()
    chunks = read_bytes = 0
    bad: list[bytes] = []
    with context.connect() as client, waiting("verifying"):
        for part in _parts(client, rate_bytes):
            chunks += part.chunks
            read_bytes += part.read_bytes
            bad += part.bad
        holders = []
        if bad:
            holders = client.call(NameHolders(bad[:10_000]), timeout_s=HOLDERS_TIMEOUT_S).holders
    took_s = time.monotonic() - began_s
    value = ContentVerified(
        chunks=chunks, read_bytes=read_bytes, took_s=took_s, bad=[each.hex() for each in bad], holders=holders
    )
    lines = [f"Verified {chunks} chunks, {size(read_bytes)}, in {seconds(took_s)}."]
    if bad:
        lines += [f"{len(bad)} chunks are damaged, and in quarantine: save again what they belong to."]
        lines += [f"  {holder}" for holder in holders]
    show(as_json, value, lines)
    return ExitCode.NO if bad else ExitCode.OK


def _parts(client: Client, rate_bytes: int | None) -> Iterator[Verified]:
    """Yield what the owner verified, no faster than the rate."""
    from taskvault.protocol.messages import VerifySome

    step_bytes = STEP_BYTES if not rate_bytes else max(1, min(STEP_BYTES, rate_bytes // 10))
    began_s, read_bytes = time.monotonic(), 0
    after: bytes | None = b""
    while after is not None:
        part = client.call(VerifySome(after, step_bytes))
        yield part
        after = part.after
        read_bytes += part.read_bytes
        if rate_bytes and after is not None:
            time.sleep(max(0.0, began_s + read_bytes / rate_bytes - time.monotonic()))
