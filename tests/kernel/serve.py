"""A small daemon for the tests: mounts a filesystem, says so on stdout, and obeys commands on stdin.

Commands, one a line: `counts` prints the requests of each kind; `plain-intake` takes requests as pyfuse3 does by
itself, `unguard` does so and disarms the stall guard; `longest-stall` prints how long the event loop was held and
starts again; `announce` tells the kernel for ever that names were removed; `unmount` and `force-unmount` end the
mount.  SIGTERM ends all in order.
"""

from __future__ import annotations

import gc

gc.disable()  # as `python -m tvd` does: a quarter of the start

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import trio

from tvfs.clock import SystemClock
from tvfs.errors import TaskVaultError
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import WORK, Absent, Found, Handle, Ino
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.fuse.mount import Mounted, serve
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.settings import TRANSPORTS, MountSettings
from tvfs.fuse.unmount import unmount
from tvfs.plugin_api import PluginRegistry
from tvfs.testing.memory_filesystem import MemoryFilesystem
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import open_vault

gc.freeze()
gc.enable()


class FailingFilesystem(MemoryFilesystem):
    """Breaks when asked for certain names, as a filesystem with a bug or on a bad disk would."""

    def lookup(self, parent: Ino, name: bytes) -> Found | Absent:
        if name == b"raises":
            raise ZeroDivisionError("a bug")
        if name == b"bad-disk":
            raise OSError(121, "a bad disk")
        return super().lookup(parent, name)


class SlowFilesystem(MemoryFilesystem):
    """Never has what is to be read."""

    def read_nowait(self, handle: Handle, offset: int, length: int) -> bytes | None:
        return None

    async def read(self, handle: Handle, offset: int, length: int) -> bytes:
        await trio.sleep_forever()
        return b""


def say(kind: str, **facts: object) -> None:
    print(json.dumps({"kind": kind, **facts}), flush=True)


class InlineWork:
    """Holds the event loop as hashing or compressing inline does, and measures how long it was held in all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.longest_s = 0.0

    async def run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(self._seconds)
            await trio.lowlevel.checkpoint()
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - before)
            before = now


async def announce_removals(mounted: Mounted) -> None:
    """As an evictor does that works until the very end."""
    while True:
        mounted.transport.name_removed(WORK, b"absent", 99)
        await trio.sleep(0.001)


async def obey(mounted: Mounted, inline_work: InlineWork) -> None:
    lines = trio.lowlevel.FdStream(os.dup(0))
    async for received in lines:
        for command in received.decode().split():
            match command:
                case "counts":
                    say("counts", **mounted.transport.counts)
                case "plain-intake":
                    import pyfuse3

                    pyfuse3.trio.wait_readable = trio.lowlevel.wait_readable
                    say("plain intake")
                case "unguard":
                    import pyfuse3

                    pyfuse3.trio.wait_readable = trio.lowlevel.wait_readable
                    signal.setitimer(signal.ITIMER_REAL, 0.0)
                    say("unguarded")
                case "longest-stall":
                    say("stall", seconds=inline_work.longest_s)
                    inline_work.longest_s = 0.0
                case "announce":
                    trio.lowlevel.spawn_system_task(announce_removals, mounted)
                    say("announcing")
                case "unmount" | "force-unmount":
                    try:
                        await unmount(mounted.point, force=command == "force-unmount")
                    except TaskVaultError as exc:
                        say("refused", error=type(exc).__name__, message=str(exc))


async def serve_until_told(arguments: argparse.Namespace, filesystem: ServedFilesystem, lookups: LookupCounts) -> None:
    settings = MountSettings(transport=arguments.transport, **json.loads(arguments.settings))
    inline_work = InlineWork(arguments.inline_work or 1.0)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def serve_then_stop(*, task_status: trio.TaskStatus[Mounted]) -> None:
                await serve(filesystem, lookups, arguments.point, settings, task_status=task_status)
                nursery.cancel_scope.cancel()

            mounted = await nursery.start(serve_then_stop)
            nursery.start_soon(obey, mounted, inline_work)
            if arguments.inline_work:
                nursery.start_soon(inline_work.run)
            say("mounted", point=mounted.point)
            async for _ in signals:
                nursery.cancel_scope.cancel()


async def serve_memory(arguments: argparse.Namespace) -> None:
    lookups = LookupCounts()
    kind = SlowFilesystem if arguments.slow_reads else FailingFilesystem
    filesystem = kind(clock=SystemClock(), lookups=lookups, capacity_bytes=arguments.capacity)
    await serve_until_told(arguments, filesystem, lookups)
    say("ended", inodes=filesystem.inodes(), contents=contents_of(filesystem) if arguments.show_contents else {})


async def serve_vault(arguments: argparse.Namespace) -> None:
    """As the owner does, with everything sealed as soon as it rests."""
    lookups = LookupCounts()
    async with open_vault(arguments.vault, PluginRegistry()) as vault:
        settings = FilesystemSettings(
            seal_idle_s=0.05,
            seal_backoff_s=arguments.seal_backoff,
            hot_files=arguments.transport == "kernel" and json.loads(arguments.settings).get("passthrough", True),
        )
        filesystem = Filesystem(vault, clock=SystemClock(), settings=settings, lookups=lookups)
        filesystem.start()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(filesystem.run_background)
                await serve_until_told(arguments, filesystem, lookups)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await filesystem.aclose()
    say("ended")


def contents_of(filesystem: MemoryFilesystem) -> dict[str, str]:
    """Every regular file below work/ as text."""

    def below(ino: Ino, path: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in filesystem.readdir(ino, 0):
            attributes, inner = entry.found.attributes, f"{path}/{os.fsdecode(entry.name)}"
            if attributes.mode & 0o170000 == 0o040000:
                found |= below(attributes.ino, inner)
            elif attributes.mode & 0o170000 == 0o100000:
                file = filesystem._open(filesystem._node(attributes.ino))
                found[inner.lstrip("/")] = filesystem.read_nowait(file, 0, min(attributes.size, 1 << 16)).decode(
                    "latin-1"
                )
        return found

    return below(WORK, "")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("point", type=Path)
    parser.add_argument("--vault", type=Path, help="serve this vault, made if need be, instead of the twin in memory")
    parser.add_argument("--settings", default='{"vault": "test"}')
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0])
    parser.add_argument("--capacity", type=int, default=1 << 30)
    parser.add_argument("--inline-work", type=float, default=0.0, help="seconds")
    parser.add_argument("--seal-backoff", type=float, default=60.0, help="seconds: for files that are written again")
    parser.add_argument("--slow-reads", action="store_true")
    parser.add_argument("--show-contents", action="store_true")
    arguments = parser.parse_args()
    if arguments.vault and not (arguments.vault / "meta").exists():
        settings = VaultSettings(capacity_bytes=arguments.capacity)
        create_vault(arguments.vault, settings=settings, registry=PluginRegistry())
    failed = False
    try:
        trio.run(serve_vault if arguments.vault else serve_memory, arguments, strict_exception_groups=True)
    except* TaskVaultError as errors:
        failed = True
        exc: BaseException = errors
        while isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        say("failed", error=type(exc).__name__, message=str(exc))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
