"""Run pjdfstest on a mount and on the disk's own filesystem, and name every assertion that only the mount fails.

`python -m tests.posix.pjdfstest SUITE` as root, where SUITE is a directory of pjdfstest, built as its README says.
`--only chmod open/00.t` runs a part, `--way pyfuse3` another transport.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.posix.places import WAYS, mounted, plain_directory

FILE_TIMEOUT_S = 1200
DF = "#!/bin/sh\necho Filesystem Type\necho any ext4\n"
"""Some assertions are only made where `df` says ext4; they hold for the mount too."""
_LINE = re.compile(r"(?P<result>ok|not ok) (?P<number>\d+)(?: (?P<said>.*))?")
_PLAN = re.compile(r"1\.\.(\d+)")


@dataclass
class Outcome:
    """What one file of the suite said."""

    planned: int = 0
    passed: set[int] = field(default_factory=set)
    expected: set[int] = field(default_factory=set)
    """Failed as the suite says that they do on Linux."""
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def not_run(self) -> int:
        return self.planned - len(self.passed) - len(self.expected) - len(self.failed)


def test_files(suite: Path, only: Iterable[str]) -> list[str]:
    """Name the files of the suite, all or those that begin as asked."""
    names = sorted(str(path.relative_to(suite / "tests")) for path in (suite / "tests").rglob("*.t"))
    prefixes = tuple(only)
    return [name for name in names if not prefixes or name.startswith(prefixes)]


def run_file(suite: Path, name: str, place: Path, tools: Path) -> Outcome:
    """Run one file in a directory of its own, with `tools` before all others."""
    directory = place / re.sub(r"\W", "_", name)
    directory.mkdir()
    directory.chmod(0o755)
    command = ["sh", str(suite / "tests" / name)]
    variables = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "LC_ALL": "C"}
    finished = subprocess.run(
        command, cwd=directory, env=variables, capture_output=True, timeout=FILE_TIMEOUT_S, check=False
    )
    return understood(finished.stdout.decode(errors="backslashreplace"))


def understood(said: str) -> Outcome:
    """Read what a file printed: the Test Anything Protocol."""
    outcome = Outcome()
    for line in said.splitlines():
        if plan := _PLAN.fullmatch(line):
            outcome.planned = int(plan[1])
        elif found := _LINE.match(line):
            number, what = int(found["number"]), found["said"] or ""
            if found["result"] == "ok":
                outcome.passed.add(number)
            elif "# TODO" in what:
                outcome.expected.add(number)
            else:
                outcome.failed[number] = what
    return outcome


def run_all(
    suite: Path, names: list[str], place: Path, *, jobs: int, note: Callable[[str], None]
) -> dict[str, Outcome]:
    """Run the files, several at a time: most of their time they sleep."""
    place.chmod(0o755)
    with plain_directory() as tools, ThreadPoolExecutor(jobs) as pool:
        tools.chmod(0o755)
        (tools / "df").write_text(DF)
        (tools / "df").chmod(0o755)
        outcomes = {}
        finished = pool.map(lambda name: run_file(suite, name, place, tools), names)
        for name, outcome in zip(names, finished, strict=True):
            note(f"{name}: {len(outcome.passed)} of {outcome.planned}")
            outcomes[name] = outcome
        return outcomes


def summary(what: str, outcomes: dict[str, Outcome]) -> str:
    """Say in a line how it went."""
    every = outcomes.values()
    passed, failed = sum(len(each.passed) for each in every), sum(len(each.failed) for each in every)
    expected, not_run = sum(len(each.expected) for each in every), sum(each.not_run for each in every)
    tests = passed + failed + expected
    counts = f"passed {passed}, failed {failed}, expected to fail {expected}, not run {not_run}"
    return f"{what}: Files={len(every)}, Tests={tests}: {counts}"


def differences(ours: dict[str, Outcome], theirs: dict[str, Outcome]) -> list[str]:
    """Name each assertion that passes there and does not here."""
    return [
        f"{name} {number}: {ours[name].failed.get(number, 'was not run')}"
        for name in ours
        for number in sorted(theirs[name].passed - ours[name].passed)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--way", choices=WAYS, default=WAYS[0])
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not os.access(arguments.suite / "pjdfstest", os.X_OK):
        parser.error("needs root, and SUITE/pjdfstest, which is built as its README says")
    os.umask(0o022)
    suite, names = arguments.suite.resolve(), test_files(arguments.suite, arguments.only)
    note = print if arguments.verbose else _say_nothing
    with plain_directory() as plain:
        theirs = run_all(suite, names, plain, jobs=arguments.jobs, note=note)
    with mounted(arguments.way) as mount:
        mount.work.parent.parent.chmod(0o755)
        ours = run_all(suite, names, mount.work, jobs=arguments.jobs, note=note)
    for what, outcomes in (("the disk's filesystem", theirs), (f"the mount ({arguments.way})", ours)):
        print(summary(what, outcomes))
    only_here = differences(ours, theirs)
    print(f"only the mount fails {len(only_here)}")
    print("\n".join(only_here))
    return bool(only_here)


def _say_nothing(line: str) -> None:
    """Be quiet."""


if __name__ == "__main__":
    sys.exit(main())
