"""A small scenario: arrange, run, change something, run again; and what the command makes of it without us."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from tests.runs.driver import Said, Starter

SHELL_TIMEOUT_S = 60.0

_Kind = TypeVar("_Kind")


class Expect(Enum):
    """What the second run must be."""

    HIT = "hit"
    """A replay, which leaves what the command would."""
    MISS = "miss"
    """Run again, because what the first one saw is not so any more."""
    NEVER = "never"
    """The first run is not stored."""


@dataclass(frozen=True)
class Case:
    """One scenario.  Scripts are for `sh`, started in `root`; beside it are `side` and `home`, the caller's HOME.

    In options and variables `BASE` is the directory of all three.
    """

    name: str
    command: str | Sequence[str]
    expect: Expect
    change: str = ""
    arrange: str = ""
    guards: tuple[str, ...] = ()
    """Rules without which this goes wrong: names of `rules_off.SWITCHES`; of those with `+` each would do."""
    reason: str = ""
    """A part of why it is not stored."""
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_then: Mapping[str, str] | None = None
    """The same for the second run, if it differs; as the others."""
    umask: int = 0o022
    umask_then: int | None = None
    stdin: bytes | None = None
    stdin_then: bytes | None = None
    workdir: str = "."
    workdir_then: str | None = None
    options: tuple[str, ...] = ("--root", "BASE/root")
    options_then: tuple[str, ...] | None = None
    mounted: bool = False
    """Tried under the mount too."""

    @property
    def arguments(self) -> list[str]:
        return ["sh", "-c", self.command] if isinstance(self.command, str) else list(self.command)


@dataclass(frozen=True, repr=False)
class Told:
    """What became of a case."""

    first: Said
    second: Said
    differences: list[str]
    """Between what is there after the second run, and after the command alone in its place."""

    def is_wrong(self, expect: Expect) -> bool:
        """Whether a wrong result was given back, or would be."""
        if expect is Expect.NEVER:
            return self.first.is_stored
        if expect is Expect.MISS:
            return self.second.is_hit and bool(self.differences)
        return bool(self.differences)

    def check(self, case: Case) -> None:
        """Fail unless it is as the case says."""
        if case.expect is Expect.NEVER:
            assert not self.first.is_stored, self
            assert case.reason in self.first.report, self
        else:
            assert self.first.is_stored, self
            assert self.second.is_hit == (case.expect is Expect.HIT), self
        assert not self.differences, self

    def __repr__(self) -> str:
        said = (
            f"{each.report} [{each.status}] {each.out[:80]!r} {each.command_err[:80]!r}"
            for each in (self.first, self.second)
        )
        return " | ".join([*said, *self.differences[:6]])


@dataclass(frozen=True)
class Bench:
    """Where cases are tried."""

    driver: Starter
    base: Path
    environment: Mapping[str, str]
    """Of `tv`; a case adds to it."""
    scope: str

    @property
    def root(self) -> Path:
        return self.base / "root"

    def prepare(self) -> None:
        for name in ("root", "side", "home"):
            (self.base / name).mkdir(parents=True)

    def variables(self, more: Mapping[str, str]) -> dict[str, str]:
        named = {name: value.replace("BASE", str(self.base)) for name, value in more.items()}
        return {**self.environment, "HOME": str(self.base / "home"), **named}

    def shell(self, script: str, *, cwd: Path | None = None) -> None:
        """Carry out a script; it must succeed."""
        if script:
            command = ["sh", "-ec", script]
            done = subprocess.run(
                command, cwd=cwd or self.root, env=self.variables({}), capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr.decode()

    def carry_out(self, case: Case, off: Sequence[str] = ()) -> Told:
        """Run it twice with `tv`, and then once without from the same start as the second time."""
        self.prepare()
        self.shell(case.arrange)
        first = self.tv(case, then=False, off=off)
        self.shell(case.change)
        before, made = self.base.with_name("before"), self.base.with_name("made")
        copy(self.base, before)
        second = self.tv(case, then=True, off=off)
        self.base.rename(made)
        before.rename(self.base)
        truth = self.plainly(case)
        differences = compared(picture(self.base), picture(made))
        differences += [f"{name}: {should!r}, and not {was!r}" for name, should, was in (
            ("exit status", truth.status, second.status), ("stdout", truth.out, second.out),
            ("stderr", truth.err, second.command_err)) if should != was]  # fmt: skip
        return Told(first, second, differences)

    def tv(self, case: Case, *, then: bool, off: Sequence[str]) -> Said:
        options = _then(case.options, case.options_then, then)
        stdin = _then(case.stdin, case.stdin_then, then)
        given = None if stdin is None else _pipe(stdin)
        if given is not None:
            options = (*options, "--stdin")
        started = self.driver.start(
            ["run", "--scope", self.scope, *(each.replace("BASE", str(self.base)) for each in options), "--",
             *case.arguments],
            cwd=self.root / _then(case.workdir, case.workdir_then, then),
            environment=self.variables(_then(case.environment, case.environment_then, then)),
            stdin=given, umask=_then(case.umask, case.umask_then, then), off=off,
        )  # fmt: skip
        if given is not None:
            os.close(given)
        return started.wait()

    def plainly(self, case: Case) -> Said:
        stdin = _then(case.stdin, case.stdin_then, True)
        done = subprocess.run(
            case.arguments, cwd=self.root / _then(case.workdir, case.workdir_then, True),
            env=self.variables(_then(case.environment, case.environment_then, True)), input=stdin or b"",
            umask=_then(case.umask, case.umask_then, True), capture_output=True, timeout=SHELL_TIMEOUT_S, check=False,
        )  # fmt: skip
        status = done.returncode
        return Said(128 - status if status < 0 else status, done.stdout, done.stderr)


def copy(source: Path, target: Path) -> None:
    """Copy a tree with times, links, owners and modes."""
    subprocess.run(["cp", "-a", "--", source, target], check=True)


def picture(base: Path) -> dict[str, object]:
    """Return everything below the root and beside it: kinds, permissions, contents, targets."""
    found: dict[str, object] = {}
    for top in (base / "root", base / "side"):
        for directory, directories, files in os.walk(top):
            for name in (*directories, *files, "."):
                path = Path(directory, name)
                found[str(path.relative_to(base))] = _one(path)
    return found


def _one(path: Path) -> object:
    status = os.lstat(path)
    mode = stat.filemode(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return mode, os.readlink(path)
    return (mode, path.read_bytes()) if stat.S_ISREG(status.st_mode) else mode


def compared(should: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    return [f"{name}: {str(should.get(name))[:200]}, and not {str(found.get(name))[:200]}"
            for name in sorted({*should, *found}) if should.get(name) != found.get(name)]  # fmt: skip


def _then(first: _Kind, second: _Kind | None, then: bool) -> _Kind:
    return second if then and second is not None else first


def _pipe(content: bytes) -> int:
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(content)
    return reading
