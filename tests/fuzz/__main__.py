"""`python -m tests.fuzz --seconds N [target...]`: coverage-guided fuzzing, one target after the other.

Each target runs in a process of its own, for its share of the seconds.  Inputs that reach new code are kept in
`WORK/corpus/<target>/` and are where the next run begins; what breaks the rule is in `WORK/findings/`, and goes to
`tests/fuzz/corpus/<target>/` when the parser has been mended.  `WORK/results.json` has the figures of all runs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOUND_BEFORE = Path(__file__).parent / "corpus"
_STATUS = re.compile(r"cov: (\d+) ft: (\d+)")
_UNITS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb:\s*(\d+)")


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=120.0, help="for all targets together (default: 120)")
    parser.add_argument(
        "--work", type=Path, default=Path(".fuzz"), help="corpus, findings and results (default: .fuzz)"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    chosen = arguments.targets or list(TARGETS)
    findings = 0
    for name in chosen:
        result = fuzz(name, arguments.seconds / len(chosen), arguments.work)
        findings += len(result["findings"])
        print(
            f"{name}: {result['executions']} executions in {result['seconds']:.0f} s, coverage {result['coverage']},"
            f" features {result['features']}, {result['peak_mib']} MiB, findings: {len(result['findings'])}",
            flush=True,
        )
    print(f"{len(chosen)} targets, {findings} findings; {arguments.work / 'results.json'}")
    return 1 if findings else 0


def fuzz(name: str, seconds: float, work: Path) -> dict[str, Any]:
    """Fuzz one target in another process and return its figures, which are also added to the results."""
    corpus, findings = work / "corpus" / name, work / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.one_target", name, str(corpus), str(findings), str(max(1, round(seconds)))]  # noqa: E501  # fmt: skip
    found_before = FOUND_BEFORE / name
    if found_before.is_dir():
        command.append(str(found_before))
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    (work / f"{name}.log").write_text(done.stdout + done.stderr)
    said = done.stdout + done.stderr
    statuses = _STATUS.findall(said)
    new = sorted(path.name for path in set(findings.iterdir()) - before)
    if done.returncode and not new:
        new = [f"ended with status {done.returncode}; see {name}.log"]
    result = {
        "target": name,
        "seconds": round(time.monotonic() - started, 1),
        "executions": _number(_UNITS, said),
        "coverage": int(statuses[-1][0]) if statuses else 0,
        "features": int(statuses[-1][1]) if statuses else 0,
        "peak_mib": _number(_PEAK, said),
        "corpus": sum(1 for _ in corpus.iterdir()),
        "findings": new,
    }
    _remember(work / "results.json", result)
    return result


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[1]) if found else 0


def _remember(path: Path, result: dict[str, Any]) -> None:
    results = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*results, result], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
