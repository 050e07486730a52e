"""A vault of its own for each measurement, and the real programs that work on it."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pairs import run

TV = (
    [sys.executable, "-m", "taskvault"]
    if not Path(sys.executable).with_name("tv").exists()
    else [str(Path(sys.executable).with_name("tv"))]
)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A running vault under a directory that is removed afterwards."""

    home: Path
    mount: Path

    def tv(self, *arguments: str, cwd: Path | None = None) -> None:
        """Run `tv` on this vault; raise if it fails."""
        run(*TV, "--home", str(self.home), *arguments, cwd=str(cwd) if cwd else None)


@contextmanager
def vault(parent: Path, name: str = "vault", size: str = "40G") -> Iterator[Workplace]:
    """Make and start a vault; stop and remove it in the end."""
    home = fresh(parent / name)
    run(*TV, "init", str(home), "--size", size)
    with running(home) as place:
        yield place


@contextmanager
def running(home: Path) -> Iterator[Workplace]:
    """Start a vault; stop and remove it in the end."""
    place = Workplace(home, home / "mnt")
    place.tv("up")
    try:
        yield place
    finally:
        with suppress(RuntimeError):
            place.tv("down")
        subprocess.run(["umount", "-l", str(place.mount)], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(home, ignore_errors=True)


def drop_caches() -> None:
    """Write everything back and forget the page cache; needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def read_all(directory: Path) -> None:
    """Read every byte of every file below a directory with ordinary tools."""
    run("sh", "-c", 'find "$1" -type f -print0 | xargs -0 cat >/dev/null', "sh", str(directory))


def fresh(path: Path) -> Path:
    """Return the path, with nothing there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)
    return path


def processes_of(home: Path) -> list[int]:
    """Process ids of the daemon and the clients of a vault: those whose command line names its home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if os.fsencode(home) in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def await_rest(home: Path) -> None:
    """Return when a vault's processes have used next to nothing of the processor for a second; after a minute anyway.

    What was still to be compacted when the vault was copied is compacted after the start.
    """
    used_s = math.inf
    for _ in range(60):
        before_s, used_s = used_s, sum(map(_processor_s, processes_of(home)))
        if used_s - before_s < 0.02 and not math.isinf(before_s):
            return
        time.sleep(1)


def _processor_s(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def proportional_bytes(pid: int) -> int:
    """Proportional set size of a process, in bytes; 0 if it has gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
