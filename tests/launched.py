"""Calls of tools and of `tv` through the native launcher, and how often Python was started for them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskvault.run.shims import make_shims
from tests.runs.driver import TIMEOUT_S, Said

_COUNTING = """#!/bin/sh
echo x >> {calls}
exec {python} -m taskvault "$@"
"""


@dataclass(frozen=True)
class Launched:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    out: Any
    err: Any

    @property
    def pid(self) -> int:
        """Of the launcher, and of what it becomes."""
        return self.process.pid

    def out_so_far(self) -> bytes:
        """What it has written to stdout."""
        return os.pread(self.out.fileno(), 1 << 16, 0)

    def err_so_far(self) -> bytes:
        """The same for stderr."""
        return os.pread(self.err.fileno(), 1 << 16, 0)

    def wait(self) -> Said:
        """Return when it has ended."""
        with self.out as out, self.err as err:
            status = self.process.wait(TIMEOUT_S)
            for file in (out, err):
                file.seek(0)
            return Said(status, out.read(), err.read())


class Launcher:
    """A directory of stand-ins, which start Python through a script that counts."""

    def __init__(self, place: Path, tools: Sequence[str], *, counting: bool = True) -> None:
        place.mkdir()
        self.directory = place / "shims"
        self._calls = place / "calls"
        tv = place / "tv"
        tv.write_text(_COUNTING.format(calls=self._calls if counting else os.devnull, python=sys.executable))
        tv.chmod(0o755)
        make_shims(self.directory, tools, tv, os.environ)

    @property
    def python_starts(self) -> int:
        """How often Python was started up to now."""
        return self._calls.stat().st_size // 2 if self._calls.exists() else 0

    def start(
        self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], stdin: int | None = None,
        umask: int = 0o022, off: Sequence[str] = (),
    ) -> Launched:  # fmt: skip
        """Start `tv ARGUMENTS`, as `tests.runs.driver.Driver` does; rules cannot be switched off."""
        assert not off
        return self.tool("tv", *arguments, cwd=cwd, env=dict(environment), stdin=stdin, umask=umask)

    def tool(self, name: str, *arguments: str, stdin: int | None = None, **more: Any) -> Launched:
        """Start a tool."""
        out, err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  # until it has ended
        # A shell would set it.
        more["env"] = {"PWD": str(more["cwd"]), **more["env"]}
        process = subprocess.Popen(
            [self.directory / name, *arguments], stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=more.pop("stdout", out), stderr=err, **more,
        )  # fmt: skip
        return Launched(process, out, err)

    def warm_up(self, cwd: Path, environment: Mapping[str, str]) -> None:
        """Return when a call is replayed without Python: the first ones start the process that does it."""
        from tests.waiting import wait_until

        wait_until(lambda: self._is_warm(cwd, environment))

    def _is_warm(self, cwd: Path, environment: Mapping[str, str]) -> bool:
        said, starts = self.counted(
            lambda: self.start(["run", "--root", ".", "--", "true"], cwd=cwd, environment=environment)
        )
        assert said.status == 0, said
        return starts == 0

    def counted(self, start: Callable[[], Launched]) -> tuple[Said, int]:
        """Return what became of a command, and how often Python was started for it."""
        before = self.python_starts
        said = start().wait()
        return said, self.python_starts - before
