"""Where the long proofs of the filesystem run: a mount that can be mounted anew, and a plain directory."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.conftest import Server
from tests.vaults_in_order import assert_in_order
from tests.waiting import wait_until

WAYS = ("kernel", "kernel-writeback", "pyfuse3")
"""The transports; `kernel` alone means with passthrough, where the machine has it."""
CAPACITY_BYTES = 32 << 30
MEMORY = Path("/dev/shm")


class Mount:
    """A vault's mount, with set-user-id, devices and extended attributes; may be left and mounted anew."""

    def __init__(self, base: Path, way: str, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        transport = way.partition("-")[0]
        settings = {"vault": "posix", "suid_and_devices": True, "xattrs": True, "passthrough": way == "kernel"}
        self.home = base / "vault"
        self._point = base / "mnt"
        self._arguments = ["--vault", str(self.home), "--transport", transport, "--settings", json.dumps(settings)]
        self._arguments += ["--capacity", str(capacity_bytes), "--seal-backoff", "0.1"]
        self._server: Server | None = None
        self.work = self._point / "work"

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._server is not None
        return self._server.pid

    def enter(self) -> None:
        """Mount."""
        self._server = Server(self._point, *self._arguments)
        self._server.answer("mounted")

    def leave(self) -> None:
        """Unmount in order, so that the kernel sends what it has gathered."""
        assert self._server is not None
        self._server.send_signal(signal.SIGTERM)
        self._server.answer("ended")
        self._server.wait()
        self.drop()

    def kill(self) -> None:
        """Let the daemon die, as by SIGKILL, and take the dead mount away."""
        self.drop()

    def again(self) -> None:
        """Unmount in order and mount anew."""
        self.leave()
        self.enter()

    def rest(self) -> None:
        """Wait until everything that nobody has open is sealed."""
        wait_until(lambda: not any(path.is_file() for path in (self.home / "staging").rglob("*")))

    def drop(self) -> None:
        """End whatever there is."""
        if self._server is not None:
            self._server.close()
            self._server = None


@contextmanager
def mounted(way: str, *, place: Path | None = None, capacity_bytes: int = CAPACITY_BYTES) -> Iterator[Mount]:
    """Have a mount of a new vault, below `place` if given, which must pass `tv fsck` at the end."""
    base = Path(tempfile.mkdtemp(prefix="tv-posix-", dir=place))
    mount = Mount(base, way, capacity_bytes=capacity_bytes)
    try:
        mount.enter()
        yield mount
        mount.leave()
        assert_in_order(mount.home)
    finally:
        mount.drop()
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def plain_directory(place: Path | None = None) -> Iterator[Path]:
    """Have an empty directory of the disk's own filesystem, or below `place`."""
    base = Path(tempfile.mkdtemp(prefix="tv-plain-", dir=place))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)
