"""Directories to work in: a vault's mount served by the real daemon, and its peers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.pairs import output, run
from benchmarks.transports.places import BINDFS, EXT4, bindfs
from benchmarks.workplace import await_rest, fresh, processes_of, vault

OURS = "TaskVault"
S3QL = "S3QL"
S3QL_REQUIREMENT = "BENCH_S3QL"
"""Variable that says what to give to pip for S3QL: a directory with its source, say.  PyPI and Debian 12 lack it."""
_numbers = count()


@dataclass(frozen=True, slots=True)
class Peer:
    """One directory, and who serves it."""

    name: str
    work: Path
    servers: Callable[[], list[int]]
    """Ids of the processes that serve it."""
    home: Path | None = None
    """Of the vault, if it is ours."""

    def new(self, what: str) -> Path:
        """Return a path below the directory that nobody has used."""
        return self.work / f"{what}-{next(_numbers)}"

    def rest(self) -> None:
        """Return when what works in the background has nothing left to do."""
        if self.home is not None:
            await_rest(self.home)


class S3qlMissing(Exception):
    """It could not be installed; says why."""


@contextmanager
def peers(cache: Path, *names: str) -> Iterator[dict[str, Peer]]:
    """Serve these, each from an empty directory or vault; remove them in the end."""
    base = fresh(cache / "filesystem")
    base.mkdir()
    with ExitStack() as ends:
        ends.callback(fresh, base)
        yield {name: ends.enter_context(_SERVING[name](cache, base)) for name in names}


@contextmanager
def pinned(served: dict[str, Peer], *, to_one: bool) -> Iterator[None]:
    """Let clients and servers run on the last processor only, if `to_one`."""
    allowed = os.sched_getaffinity(0)
    chosen = {max(allowed)} if to_one else allowed
    pids = [pid for peer in served.values() for pid in peer.servers()]
    try:
        _pin(pids, chosen)
        os.sched_setaffinity(0, chosen)
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        _pin(pids, allowed)


def s3ql_version(cache: Path) -> str:
    """Return the version that is measured; install it first if need be.  Raises `S3qlMissing`."""
    python = _s3ql(cache, "python")
    return output(python, "-c", "import importlib.metadata as found; print(found.version('s3ql'))").strip()


def _pin(pids: list[int], processors: set[int]) -> None:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            # One that has just ended needs no processor.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), processors)


@contextmanager
def _ours(cache: Path, base: Path) -> Iterator[Peer]:
    with vault(base) as place:
        yield Peer(OURS, place.mount / "work", lambda: processes_of(place.home), place.home)


@contextmanager
def _ext4(cache: Path, base: Path) -> Iterator[Peer]:
    (base / EXT4).mkdir()
    yield Peer(EXT4, base / EXT4, list)


@contextmanager
def _bindfs(cache: Path, base: Path) -> Iterator[Peer]:
    point = base / BINDFS
    point.mkdir()
    with bindfs(base, point) as server:
        yield Peer(BINDFS, point, lambda: [server.pid])


@contextmanager
def _s3ql_mounted(cache: Path, base: Path) -> Iterator[Peer]:
    storage, cached, point = (base / f"s3ql-{what}" for what in ("storage", "cache", "mount"))
    for each in (storage, cached, point):
        each.mkdir()
    options = ("--cachedir", str(cached), f"local://{storage}")
    run(_s3ql(cache, "mkfs.s3ql"), "--plain", *options)
    # In the foreground, so that it is our child.
    command = [_s3ql(cache, "mount.s3ql"), "--fg", "--log", "none", *options, str(point)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run("sh", "-c", 'for _ in $(seq 100); do mountpoint -q "$1" && exit; sleep 0.1; done; exit 1', "sh", str(point))
    try:
        yield Peer(S3QL, point, lambda: [server.pid])
    finally:
        with suppress(RuntimeError):
            run(_s3ql(cache, "umount.s3ql"), str(point))
        subprocess.run(["umount", "-l", str(point)], stderr=subprocess.DEVNULL, check=False)
        server.wait(120)


def _s3ql(cache: Path, command: str) -> str:
    environment = cache / "s3ql-venv"
    found = environment / "bin" / command
    if not found.exists():
        requirement = os.environ.get(S3QL_REQUIREMENT, "s3ql")
        print("  installing S3QL …", file=sys.stderr, flush=True)
        try:
            run(sys.executable, "-m", "venv", "--clear", str(environment))
            run(str(environment / "bin" / "pip"), "install", "-q", requirement)
        except RuntimeError as exc:
            fresh(environment)
            last = str(exc).strip().splitlines()[-1]
            raise S3qlMissing(f"pip install {requirement}: {last}") from exc
    return str(found)


_SERVING = {OURS: _ours, EXT4: _ext4, BINDFS: _bindfs, S3QL: _s3ql_mounted}
