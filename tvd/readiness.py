"""Tells whoever started the daemon how the start went: `tv up` through a pipe, systemd through its socket."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from tvd.config import ServiceConfig


class ReadyPipe:
    """Writes one JSON line to an inherited descriptor.

    `{"ok":true,"mount":…,"pid":…}` or `{"ok":false,"error":…,"exit_code":…}`.
    """

    def __init__(self, descriptor: int | None) -> None:
        """Take over the descriptor; None stands for nobody who listens."""
        self._descriptor = descriptor

    def succeed(self, mount: Path | None) -> None:
        """Say that the socket answers, and the mount if there is one."""
        self._say({"ok": True, "mount": None if mount is None else str(mount), "pid": os.getpid()})

    def fail(self, error: str, exit_code: int) -> None:
        """Say why the daemon stops instead; nothing if it has already been ready."""
        self._say({"ok": False, "error": error, "exit_code": exit_code})

    def _say(self, outcome: dict[str, object]) -> None:
        if self._descriptor is None:
            return
        with suppress(OSError):  # whoever waited has gone; the daemon does not depend on it
            os.write(self._descriptor, msgspec.json.encode(outcome) + b"\n")
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None


_STORE_TIMEOUT_S = 1.0
"""How long a descriptor that is to be kept waits for the service manager to read what was sent before."""


class ServiceManager:
    """Speaks systemd's notification protocol: datagrams of `NAME=value` lines; silent when systemd did not start us."""

    def __init__(self, settings: ServiceConfig) -> None:
        self._settings = settings

    def ready(self, status: str) -> None:
        """Say that everything answers."""
        self._notify(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Say that an ordered stop has begun."""
        self._notify("STOPPING=1\nSTATUS=flushing")

    def keep(self, name: str, descriptor: int) -> None:
        """Have a duplicate kept for the next daemon."""
        self._notify(f"FDSTORE=1\nFDNAME={name}", [descriptor])

    def drop(self, name: str) -> None:
        """Have what was kept under the name closed."""
        if self.keeps_descriptors:
            self._notify(f"FDSTOREREMOVE=1\nFDNAME={name}")

    @property
    def keeps_descriptors(self) -> bool:
        """Whether somebody who listens keeps them."""
        return self._settings.keeps_descriptors and self._notify("STATUS=")

    async def feed_watchdog(self) -> None:
        """Say that the event loop runs, twice as often as asked, until cancelled; return at once if nobody asked."""
        interval_s = self._settings.watchdog_s
        if interval_s is None or self._settings.notify_socket is None:
            return
        while True:
            self._notify("WATCHDOG=1")
            await trio.sleep(interval_s / 2)

    def _notify(self, text: str, descriptors: Sequence[int] = ()) -> bool:
        """Return whether somebody took it."""
        address = self._settings.notify_socket
        if address is None:
            return False
        if address.startswith("@"):
            address = "\0" + address[1:]
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_STORE_TIMEOUT_S if descriptors else 0)
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            sender.sendmsg([text.encode()], passed, 0, address)
            return True
        return False
