"""`python -m benchmarks.transports.serving POINT VAULT TRANSPORT`: a vault's filesystem and mount, without a daemon.

As the daemon puts them together, without its sockets and its eviction.  Says `mounted` on stdout; each line on stdin is
answered with the number of requests of each kind so far.  SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import sys
from pathlib import Path

import trio

from tvd.main import SWITCH_INTERVAL_S
from tvfs.clock import SystemClock
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.fuse.kernel.passthrough import DIRECT_OPENS
from tvfs.fuse.mount import Mounted, serve
from tvfs.fuse.settings import MountSettings
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import open_vault

PLAIN_INTAKE = "pyfuse3-plain"
PASSTHROUGH = "kernel-passthrough"
SERVED = (PLAIN_INTAKE, "pyfuse3", "kernel", PASSTHROUGH)
CAPACITY_BYTES = 40 << 30


def main() -> int:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transports.serving", description=__doc__)
    parser.add_argument("point", type=Path)
    parser.add_argument("vault", type=Path)
    parser.add_argument("transport", choices=SERVED)
    options = parser.parse_args()
    if options.transport == PLAIN_INTAKE:
        _leave_the_intake_to_pyfuse3()
    create_vault(options.vault, settings=VaultSettings(capacity_bytes=CAPACITY_BYTES), registry=PluginRegistry())
    # As the daemon does.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    trio.run(_serve, options.point, options.vault, options.transport)
    return 0


def _leave_the_intake_to_pyfuse3() -> None:
    import tvfs.fuse.pyfuse3_session

    tvfs.fuse.pyfuse3_session.quick_intake = contextlib.nullcontext  # type: ignore[attr-defined, assignment]


async def _serve(point: Path, home: Path, transport: str) -> None:
    passthrough = transport == PASSTHROUGH
    settings = MountSettings("benchmark", transport=transport.partition("-")[0], passthrough=passthrough)
    lookups = LookupCounts()
    async with open_vault(home, PluginRegistry()) as vault:
        filesystem = Filesystem(
            vault, clock=SystemClock(), settings=FilesystemSettings(hot_files=passthrough), lookups=lookups
        )
        filesystem.start()
        try:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async with trio.open_nursery() as nursery:
                    await nursery.start(filesystem.run_background)
                    mounted: Mounted = await nursery.start(serve, filesystem, lookups, point, settings)
                    nursery.start_soon(_tell_counts, mounted.transport.counts)
                    print("mounted", flush=True)
                    async for _ in signals:
                        nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await filesystem.aclose()


async def _tell_counts(counts: dict[str, int]) -> None:
    async for _ in trio.lowlevel.FdStream(os.dup(0)):
        print(json.dumps({kind: number for kind, number in counts.items() if kind != DIRECT_OPENS}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
