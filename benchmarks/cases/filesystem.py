"""Programs under the mount, beside filesystems that people know; `filesystem/ROW` runs one row alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.filesystem import many_files, requests, single_calls, writing
from benchmarks.pairs import Outcome, Table

ROWS: dict[str, Callable[[Path, int], Sequence[Outcome | Table]]] = {
    "requests": requests.measure,
    "untar": many_files.measure_untar,
    "untar-s3ql": many_files.measure_untar_s3ql,
    "git": many_files.measure_git,
    "build": many_files.measure_build,
    "npm": many_files.measure_npm,
    "write": writing.measure,
    "uncached": single_calls.measure_uncached,
    "stat": single_calls.measure_stat_while_saving,
    "clients": single_calls.measure_clients,
}


def measure(cache: Path, pairs: int) -> Sequence[Outcome | Table]:
    """Every row, with the processors as they are and with all pinned to one."""
    return [outcome for row in ROWS.values() for outcome in row(cache, pairs)]
