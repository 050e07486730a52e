"""Tries a workload in every way that counts: stored, replayed, changed, moved, twice at once."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.runs.case import compared
from tests.workloads import sources
from tests.workloads.workload import Change, Workload

TIMEOUT_S = 1200.0
MOST_NAMED = 6
"""Differences that are told of one comparison."""

Picture = Mapping[str, object]


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int
    out: bytes
    err: bytes
    took_s: float

    @property
    def report(self) -> str:
        """The last line that is ours."""
        return next((line for line in reversed(os.fsdecode(self.err).splitlines()) if line.startswith("tv: ")), "")

    @property
    def said(self) -> tuple[int, bytes, bytes]:
        """What the command itself said."""
        own = b"".join(line for line in self.err.splitlines(keepends=True) if not line.startswith(b"tv: "))
        return self.status, self.out, own

    @property
    def is_hit(self) -> bool:
        return self.report.startswith("tv: hit")

    @property
    def is_stored(self) -> bool:
        return self.report.endswith(", stored")


@dataclass
class Told:
    """What was found."""

    workload: Workload
    plain_s: float = 0.0
    first_s: float = 0.0
    replay_s: float = 0.0
    made: int = 0
    """Files."""
    bound: str = ""
    """Why the result holds only there, as `tv why` says it."""
    wrong: list[str] = field(default_factory=list)
    """What is not as it should be."""


class Bench:
    """One workload in a directory of its own, with a vault that is up."""

    def __init__(self, workload: Workload, base: Path, tv: list[str], environment: Mapping[str, str]) -> None:
        """`environment` is what `tv` needs to find its vault."""
        self._workload = workload
        self._base = base
        self._tv = tv
        self._ours = dict(environment)
        self._told = Told(workload)
        self._start = base / "start"
        self._tree = base / "work" / "tree"
        self._tools = base / "home" / "tools"

    def carry_out(self, *, briefly: bool = False) -> Told:
        """Try everything, or `briefly` no changes; what fails is told, and the rest is tried all the same."""
        self.arranged()
        truth, plain = self._plainly()
        first = self._first(truth, plain)
        if first is None:
            return self._told
        self._replay(first)
        self._finished()
        self._moved(first[0])
        self._at_once(first[0])
        if not briefly:
            self._change_from_the_start()
            self._change_what_is_built()
        return self._told

    def arranged(self) -> Path:
        """Make the project; return where it is."""
        for directory in (self._start, self._tree.parent, self._tools):
            directory.mkdir(parents=True)
        self._shell(self._workload.arrange, self._start)
        return self._start

    def environment(self) -> dict[str, str]:
        """Return the variables with which everything is tried, and those that `tv` needs."""
        return {**self._environment({}), **self._ours}

    # --- what is tried -----------------------------------------------------------------------------------------------

    def _plainly(self) -> tuple[Picture, Ran]:
        """What it makes without us."""
        self._fresh()
        ran = self._plain(self._workload.command)
        if ran.status:
            raise AssertionError(f"{self._workload.name} itself fails: {ran.err.decode(errors='replace')[-2000:]}")
        self._told.plain_s = ran.took_s
        return picture(self._tree), ran

    def _first(self, truth: Picture, plain: Ran) -> tuple[Picture, Ran] | None:
        self._fresh()
        before = picture(self._tree)
        ran = self._run(self._workload.command)
        self._told.first_s = ran.took_s
        found = picture(self._tree)
        made = [name for name in found if found[name] != before.get(name) and isinstance(found[name], tuple)]
        self._told.made = len(made)
        self._expect(len(made) >= self._workload.fewest_made, f"first: it made {len(made)} files")
        self._same("first", truth, found)
        if not self._workload.says_more:
            self._expect(plain.said == ran.said, f"first: it says {_short(ran)}, and without us {_short(plain)}")
        self._expect(ran.is_stored, f"first: {ran.report or _short(ran)}")
        return (found, ran) if ran.is_stored else None

    def _replay(self, first: tuple[Picture, Ran]) -> None:
        self._fresh()
        began_ns = time.time_ns()
        ran = self._run(self._workload.command)
        self._told.replay_s = ran.took_s
        self._expect(ran.is_hit, f"replay: {ran.report or _short(ran)} ({self._why()})")
        self._expect(ran.said == first[1].said, f"replay: it says {_short(ran)}, and first {_short(first[1])}")
        found = picture(self._tree)
        self._same("replay", first[0], found, but=self._workload.restamped)
        start = picture(self._start)
        inputs = max(
            os.lstat(self._tree / name).st_mtime_ns
            for name in found
            if isinstance(found[name], tuple) and found[name] == start.get(name)
        )
        made = [name for name in found if name not in start and isinstance(found[name], tuple)]
        for name in made:
            stamp = os.lstat(self._tree / name).st_mtime_ns
            # The clock that stamps files ticks every few milliseconds.
            if stamp < inputs or stamp < began_ns - 20_000_000:
                self._told.wrong.append(f"replay: {name} is older than what it was made from")
                break

    def _finished(self) -> None:
        """The build tool itself finds nothing to do."""
        for command, says in self._workload.finished.items():
            ran = self._plain(command)
            self._expect(
                ran.status == 0 and re.search(says, (ran.out + ran.err).decode(errors="replace")) is not None,
                f"{command!r} after the replay: {_short(ran)}",
            )

    def _moved(self, first: Picture) -> None:
        self._fresh()
        elsewhere = self._base / "elsewhere" / "deeper" / "tree"
        elsewhere.parent.mkdir(parents=True)
        self._tree.rename(elsewhere)
        ran = self._run(self._workload.command, root=elsewhere)
        if self._workload.bound:
            self._expect(ran.is_stored, f"moved: {ran.report}, and it should be bound to its root")
            told = self._why(elsewhere)
            self._expect("its result holds only there" in told, f"moved: nobody says why it is bound ({told})")
            self._told.bound = told.partition("only there: ")[2].partition(")")[0]
        else:
            self._expect(ran.is_hit, f"moved: {ran.report} ({self._why(elsewhere)})")
            self._same("moved", first, picture(elsewhere))
        shutil.rmtree(elsewhere.parent.parent)

    def _at_once(self, first: Picture) -> None:
        """Two in two places; of a result that is bound to its place, two in the same."""
        if self._workload.bound:
            self._at_once_in_one_place()
            return
        places = [self._base / "at-once" / number / "tree" for number in ("1", "2")]
        for place in places:
            self._copy(self._start, place)
        ran = self._two_of(self._workload.command, places)
        self._expect(sorted(each.is_hit for each in ran) == [False, True], f"at once: {[each.report for each in ran]}")
        for place in places:
            self._same("at once", first, picture(place))
        shutil.rmtree(places[0].parent.parent)

    def _at_once_in_one_place(self) -> None:
        # The second finds what the first has made, and so has something else to do, or nothing.
        self._fresh()
        command = self._workload.command
        if self._workload.again:
            self._run(command)
            self._shell(next(change.script for change in self._workload.changes if change.built), self._tree)
            command = self._workload.again
        ran = self._two_of(command, [self._tree, self._tree])
        self._expect(all(each.status == 0 for each in ran), f"at once: {[_short(each) for each in ran]}")
        self._expect(any(b"waiting for process" in each.err for each in ran), "at once: nobody waited")
        self._finished()

    def _two_of(self, command: str, places: list[Path]) -> list[Ran]:
        began = time.monotonic()
        both = [self._start_run(command, root=place, scope="at-once") for place in places]
        return [self._ended(each, began) for each in both]

    def _change_from_the_start(self) -> None:
        for change in self._workload.changes:
            if not change.built:
                self._fresh()
                self._change(change, self._workload.command)

    def _change_what_is_built(self) -> None:
        changes = [change for change in self._workload.changes if change.built]
        if not changes:
            return
        self._fresh()
        ran = self._run(self._workload.command)
        self._expect(ran.is_hit, f"before changes: {ran.report}")
        why = self._workload.unstored_again
        for _ in range(2):
            ran = self._run(self._workload.again)
            self._expect(why in ran.report if why else ran.is_stored or ran.is_hit, f"again: {ran.report}")
        built = self._base / "built"
        self._copy(self._tree, built)
        for change in changes:
            shutil.rmtree(self._tree)
            self._copy(built, self._tree)
            self._change(change, self._workload.again)
        shutil.rmtree(built)

    def _change(self, change: Change, command: str) -> None:
        """Change something, and compare what follows with what follows without us."""
        tools = self._base / "tools.before"
        self._copy(self._tools, tools)
        self._shell(change.script, self._tree)
        before = self._base / "before"
        self._copy(self._tree, before)
        ran = self._run(command, **change.environment)
        found = picture(self._tree)
        shutil.rmtree(self._tree)
        before.rename(self._tree)
        plain = self._plain(command, **change.environment)
        self._expect(not ran.is_hit, f"{change.name}: {ran.report}")
        self._same(change.name, picture(self._tree), found)
        if not self._workload.says_more:
            self._expect(
                ran.said == plain.said, f"{change.name}: it says {_short(ran)}, and without us {_short(plain)}"
            )
        shutil.rmtree(self._tools)
        tools.rename(self._tools)

    # --- how ---------------------------------------------------------------------------------------------------------

    def _expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self._told.wrong.append(otherwise)

    def _same(self, when: str, should: Picture, found: Picture, *, but: tuple[str, ...] | None = None) -> None:
        varies = self._workload.varies if but is None else but
        differences = [
            difference
            for difference in compared(should, found)
            if not any(fnmatch.fnmatchcase(difference.split(": ")[0], pattern) for pattern in varies)
        ]
        self._told.wrong += [f"{when}: {difference}" for difference in differences[:MOST_NAMED]]

    def _fresh(self) -> None:
        """The project as it was at the start, with its times."""
        if self._tree.exists():
            shutil.rmtree(self._tree)
        self._copy(self._start, self._tree)

    def _copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--", source, target], check=True)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        found = {"PATH": f"{self._tools}:{os.environ['PATH']}", "HOME": str(self._base / "home"), "LANG": "C.UTF-8"}
        for name in ("RUSTUP_HOME", "CARGO_HOME"):
            found[name] = os.environ.get(name, str(Path.home() / f".{name.split('_')[0].lower()}"))
        return {**found, **self._workload.environment, **more}

    def _scripted(self) -> dict[str, str]:
        places = {name.upper(): str(sources.SOURCES[name]()) for name in self._workload.sources}
        return {"TOOLS": str(self._tools), **places}

    def _shell(self, script: str, where: Path) -> None:
        done = subprocess.run(
            ["sh", "-ec", script], cwd=where, env=self._environment(self._scripted()), capture_output=True, check=False
        )
        assert done.returncode == 0, f"{script[:80]}: {done.stderr.decode(errors='replace')[-2000:]}"

    def _arguments(self, command: str) -> list[str]:
        for name, place in self._scripted().items():
            command = command.replace(f"${name}", place)
        return ["sh", "-ec", command]

    def _plain(self, command: str, **more: str) -> Ran:
        began = time.monotonic()
        done = subprocess.run(
            self._arguments(command), cwd=self._tree, env=self._environment(more), stdin=subprocess.DEVNULL,
            capture_output=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def _run(self, command: str, *, root: Path | None = None, **more: str) -> Ran:
        began = time.monotonic()
        return self._ended(self._start_run(command, root=root or self._tree, scope="main", **more), began)

    def _start_run(self, command: str, *, root: Path, scope: str, **more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._tv, "run", "--scope", scope, "--", *self._arguments(command)], cwd=root,
            env={**self._environment(more), **self._ours}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def _ended(self, process: subprocess.Popen[bytes], began: float) -> Ran:
        out, err = process.communicate(timeout=TIMEOUT_S)
        return Ran(process.returncode, out, err, time.monotonic() - began)

    def _why(self, root: Path | None = None) -> str:
        done = subprocess.run(
            [*self._tv, "why"], cwd=root or self._tree, env={**self._environment({}), **self._ours},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return " / ".join(line.strip() for line in done.stdout.splitlines()[3:10])


def picture(tree: Path) -> dict[str, object]:
    """Return everything below a directory but what git keeps: kinds, permissions, digests of contents, targets."""
    found: dict[str, object] = {}
    for directory, directories, files in os.walk(tree):
        if ".git" in directories:
            directories.remove(".git")
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if os.path.islink(path):
                found[os.path.relpath(path, tree)] = (mode, os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, tree)] = (mode, hashlib.file_digest(file, "sha256").hexdigest())
            else:
                found[os.path.relpath(path, tree)] = mode
    return found


def _short(ran: Ran) -> str:
    status, out, err = ran.said
    return f"[{status}] {out[-160:]!r} {err[-300:]!r}"
