"""`python -m benchmarks`: run the cases, print the table, and with `--write` record it in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cases import (
    attach,
    build,
    entries,
    entry_table,
    eviction,
    filesystem,
    long_output,
    memory,
    runs,
    save,
    sequential,
    space,
    tracer,
    transport,
)
from benchmarks.pairs import Outcome, Table

CASES: dict[str, Callable[[Path, int], Sequence[Outcome | Table]]] = {
    "get": attach.measure,
    "read-large": attach.measure_reading_large,
    "read-small": attach.measure_reading_small,
    "save": save.measure,
    "sequential": sequential.measure,
    "build": build.measure,
    "memory": memory.measure,
    "entries": entries.measure,
    "entry-table": entry_table.measure,
    "space": space.measure,
    "eviction": eviction.measure,
    "tracer": tracer.measure,
    "runs": runs.measure,
    "long-output": long_output.measure,
    "transport": transport.measure,
    "filesystem": filesystem.measure,
}
ROWS = {f"filesystem/{name}": measure for name, measure in filesystem.ROWS.items()}
"""Parts of cases, to be run alone."""


def main() -> int:
    """Run what was asked for; exit with 1 if a floor was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES, *ROWS], help="cases to run; all if none is named")
    parser.add_argument("--pairs", type=int, default=15, help="alternating pairs a case (default 15)")
    parser.add_argument("--cache", type=Path, default=Path(".bench"), help="where inputs are kept (default .bench)")
    parser.add_argument("--write", action="store_true", help="add the table to docs/benchmarks.md")
    options = parser.parse_args()
    cache = options.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome | Table] = []
    for name in options.cases or CASES:
        print(f"{name}:", file=sys.stderr, flush=True)
        outcomes += (CASES | ROWS)[name](cache, options.pairs)
        # At once, since the whole takes half an hour and may be interrupted.
        print(render(outcomes), file=sys.stderr, flush=True)
    table = render(outcomes)
    print(table)
    if options.write:
        with Path("docs/benchmarks.md").open("a") as page:
            page.write(f"\n## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n{machine()}\n\n{table}\n")
    return 1 if any(isinstance(outcome, Outcome) and outcome.met is False for outcome in outcomes) else 0


def render(outcomes: Sequence[Outcome | Table]) -> str:
    """Return the outcomes as a Markdown table, and what has a table of its own after it."""
    verdict = {True: "yes", False: "**no**", None: ""}
    lines = Table(
        ["what", "TaskVault", "peer", "figure", "floor", "aim", "floor met", "pairs"],
        [
            [o.case, o.ours, o.peer, o.figure, o.floor, o.aim, verdict[o.met], str(o.pairs)]
            for o in outcomes
            if isinstance(o, Outcome)
        ],
    )
    tables = [lines] * bool(lines.rows) + [table for table in outcomes if isinstance(table, Table)]
    return "\n\n".join(map(str, tables))


def machine() -> str:
    """One line on what this was measured on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Linux {platform.release()}, {os.cpu_count()} processors, {memory_gib:.0f} GiB,"
        f" Python {platform.python_version()}. Median [quartiles]."
    )


if __name__ == "__main__":
    sys.exit(main())
