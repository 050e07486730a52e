"""Try the workloads, all or those that are named: `make workloads`; docs/design/workloads.md has the results."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.workloads.bench import Bench, Told
from tests.workloads.table import WORKLOADS
from tests.workloads.vault import vault_up


def main(names: list[str]) -> int:
    """Print a line of the table for each, and below it what is wrong."""
    unknown = set(names) - {workload.name for workload in WORKLOADS}
    if unknown:
        print(f"workloads: there is no {' and no '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    failed = []
    with tempfile.TemporaryDirectory(prefix="workloads-") as directory, vault_up(Path(directory) / "vault") as vault:
        for workload in WORKLOADS:
            if names and workload.name not in names:
                continue
            missing = [program for program in workload.programs if shutil.which(program) is None]
            if missing:
                print(f"{workload.name}: left out, there is no {' and no '.join(missing)}")
                continue
            base = Path(directory) / workload.name
            told = Bench(workload, base, vault.tv, vault.environment).carry_out()
            print(row(told), flush=True)
            for wrong in told.wrong:
                print(f"    {wrong}", flush=True)
            if told.wrong:
                failed.append(workload.name)
            shutil.rmtree(base)
    print(f"workloads: {f'failed: {failed}' if failed else 'clean'}")
    return bool(failed)


def row(told: Told) -> str:
    """Return a line of the table."""
    workload = told.workload
    times = f"{told.plain_s:.2f} | {told.first_s:.2f} | {told.replay_s:.2f}"
    where = f"{workload.bound} ({told.bound})" if workload.bound else "any place"
    return f"| {workload.name}: {workload.says} | {told.made} | {times} | {where} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
