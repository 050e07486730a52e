"""Directories that are served in different ways: a vault by each transport, and the peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pairs import run
from benchmarks.transports.serving import PLAIN_INTAKE, SERVED
from benchmarks.workplace import fresh

EXT4 = "ext4"
"""The filesystem that the cache directory is on, whatever it is."""
BINDFS = "bindfs"
NAMES = (EXT4, BINDFS, *SERVED)
HEADINGS = {PLAIN_INTAKE: "pyfuse3, its own intake", "kernel-passthrough": "kernel, passthrough"}
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """A directory, and who serves it."""

    name: str
    work: Path
    server: subprocess.Popen[str] | None

    def requests(self) -> int | None:
        """Return how many requests the transport has answered so far; None of what is not ours."""
        counts = self.requests_by_kind()
        return None if counts is None else sum(counts.values())

    def requests_by_kind(self) -> dict[str, int] | None:
        """Return how many requests of each kind the transport has answered so far; None of what is not ours."""
        if self.server is None or self.name not in SERVED:
            return None
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        counts: dict[str, int] = json.loads(self.server.stdout.readline())
        return counts

    def pin(self, processors: set[int]) -> None:
        """Let the server run on these only, with all its threads."""
        if self.server is not None:
            for thread in Path(f"/proc/{self.server.pid}/task").iterdir():
                # One that has just ended needs no processor.
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), processors)


@contextmanager
def places(cache: Path) -> Iterator[dict[str, Place]]:
    """Serve all of them at once, each from an empty directory or vault of its own; remove them in the end."""
    base = fresh(cache / "transports")
    with ExitStack() as ends:
        ends.callback(fresh, base)
        (base / EXT4).mkdir(parents=True)
        found = {EXT4: Place(EXT4, base / EXT4, None)}
        for name in (BINDFS, *SERVED):
            point = base / name
            point.mkdir()
            server = ends.enter_context(bindfs(base, point) if name == BINDFS else served(base, point, name))
            found[name] = Place(name, point if name == BINDFS else point / "work", server)
        yield found


@contextmanager
def bindfs(base: Path, point: Path) -> Iterator[subprocess.Popen[str]]:
    """Show a directory below `base` at `point`."""
    source = base / "bindfs-source"
    source.mkdir()
    server = subprocess.Popen(["bindfs", "-f", str(source), str(point)], text=True)
    run("sh", "-c", 'for _ in $(seq 100); do mountpoint -q "$1" && exit; sleep 0.1; done; exit 1', "sh", str(point))
    try:
        yield server
    finally:
        _unmount(point)
        server.wait(_STOP_TIMEOUT_S)


@contextmanager
def served(base: Path, point: Path, transport: str) -> Iterator[subprocess.Popen[str]]:
    """Serve a new vault below `base` at `point`."""
    command = [sys.executable, "-m", "benchmarks.transports.serving", str(point), str(base / f"vault-{transport}")]
    with subprocess.Popen([*command, transport], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            if server.stdout.readline() != "mounted\n":
                raise RuntimeError(f"the transport {transport} did not mount; its reason is above")
            yield server
        finally:
            server.terminate()
            try:
                server.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                _unmount(point)


def _unmount(point: Path) -> None:
    subprocess.run(["umount", "-l", str(point)], stderr=subprocess.DEVNULL, check=False)
