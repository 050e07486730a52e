"""Print figures of fuzzing as a table for docs/design/hostile-input.md: `python -m tests.fuzz.report results.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    totals: dict[str, dict[str, float]] = {}
    findings: dict[str, int] = {}
    for path in sys.argv[1:]:
        for result in json.loads(Path(path).read_text()):
            total = totals.setdefault(
                result["target"], {"seconds": 0, "executions": 0, "coverage": 0, "features": 0, "corpus": 0}
            )
            total["seconds"] += result["seconds"]
            total["executions"] += result["executions"]
            for name in ("coverage", "features", "corpus"):
                total[name] = max(total[name], result[name])
            findings[result["target"]] = findings.get(result["target"], 0) + len(result["findings"])
    print("| target | seconds | executions | coverage | features | corpus | findings |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, total in totals.items():
        shown = " | ".join(
            f"{total[each]:,.0f}" for each in ("seconds", "executions", "coverage", "features", "corpus")
        )
        print(f"| `{name}` | {shown} | {findings[name]} |")
    seconds, executions = (sum(total[each] for total in totals.values()) for each in ("seconds", "executions"))
    print(f"| {len(totals)} targets | {seconds:,.0f} | {executions:,.0f} | | | | {sum(findings.values())} |")


if __name__ == "__main__":
    main()
