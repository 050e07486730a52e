"""Each compiler call a run of its own: a build in which one file changed replays all the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workloads.bench import Bench
from tests.workloads.compiled import CARGO, CMAKE, SMALL_MAKE
from tests.workloads.vault import Up, vault_up
from tests.workloads.workload import Workload

pytestmark = pytest.mark.kernel

WRAPPER = '#!/bin/sh\nexec {tv} run --quiet --root {root} -- "$@"\n'
"""cargo starts compilers of packages where those lie."""


@dataclass(frozen=True)
class Way:
    """One way to have each compiler call be a run."""

    name: str
    workload: Workload
    build: str
    """For `sh`; TV is `tv`."""
    clean: str
    change: str
    executed: tuple[str, ...]
    """What the commands that are executed after the change say, each at least once; and no others."""
    fewest: int
    """Commands that are executed at first."""
    shims: tuple[str, ...] = ()
    wrapper: str = ""
    """The variable that names a script around the compiler."""
    varies: tuple[str, ...] = ()


_CMAKE = (
    "cmake -S . -B build -G Ninja -DCMAKE_C_COMPILER_LAUNCHER='$TV;run;--quiet;--' > cmake.log; ninja -C build --quiet"
)
_LINKS = (" -o libjson-c", " -o apps/", " -o tests/")

WAYS = (
    Way(
        "make", SMALL_MAKE, "make -s CC='$TV run --quiet -- gcc'", "rm *.o program", "echo 'int more;' >> b.c",
        ("-c -o b.o", "-o program"), 5,
    ),
    Way(
        "make with shims", SMALL_MAKE, "make -s", "rm *.o program", "echo 'int more;' >> b.c",
        ("-c -o b.o", "-o program"), 5, ("gcc",),
    ),
    Way(
        "a launcher of CMake", CMAKE, _CMAKE, "rm -r build", "echo 'int more;' >> json_util.c",
        ("json_util.c.o -c", "json_util.c.o", "CMakeFiles/CMakeScratch", *_LINKS), 40,
    ),
    Way(
        "RUSTC_WRAPPER", CARGO, "cargo build -q", "rm -r target", "echo 'pub fn more() {}' >> src/lib.rs",
        ("--crate-name workload --edition=2021 src/lib.rs", "--crate-name workload --edition=2021 src/main.rs"), 40,
        wrapper="RUSTC_WRAPPER",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with vault_up(tmp_path_factory.mktemp("vault") / "home") as up:
        yield up


@dataclass(frozen=True)
class Site:
    """Where one way is tried."""

    way: Way
    vault: Up
    root: Path
    environment: dict[str, str]

    def shell(self, script: str) -> None:
        done = subprocess.run(
            ["sh", "-ec", script], cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def build(self, *, inside: bool) -> list[str]:
        """Build, each call by itself or all of them inside a run; return the calls that were executed."""
        known = {run["run"] for run in self._runs()}
        script = self.way.build.replace("$TV", self.vault.tv[0])
        if inside:
            script = f"{self.vault.tv[0]} run -- sh -ec {_quoted(script)}"
        self.shell(script)
        new = [run for run in self._runs() if run["run"] not in known and run["command"][0] != "sh"]
        return [" ".join(run["command"]) for run in new if run["outcome"] != "hit"]

    def _runs(self) -> list[dict[str, str]]:
        told = subprocess.run(
            [*self.vault.tv, "runs", "--limit", "5000", "--json"], env=self.environment, capture_output=True, check=True
        )
        found: list[dict[str, str]] = json.loads(told.stdout)
        return found


def _quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"


@pytest.fixture
def site(vault: Up, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    way: Way = request.param
    missing = [program for program in way.workload.programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: make workloads installs them")
    bench = Bench(way.workload, tmp_path / "base", vault.tv, vault.environment)
    root, environment = bench.arranged(), bench.environment()
    if way.shims:
        subprocess.run([*vault.tv, "shim", str(tmp_path / "shims"), *way.shims], env=environment, check=True)
        environment["PATH"] = f"{tmp_path / 'shims'}:{environment['PATH']}"
    if way.wrapper:
        script = tmp_path / "wrapper"
        script.write_text(WRAPPER.format(tv=vault.tv[0], root=root))
        script.chmod(0o755)
        environment[way.wrapper] = str(script)
    return Site(way, vault, root, environment)


def _slow_but_first() -> list[object]:
    return [
        pytest.param(way, inside, id=f"{way.name}{', inside' if inside else ''}".replace(" ", "-"),
                     marks=[pytest.mark.slow, pytest.mark.timeout(1800)] if number else [])
        for number, (way, inside) in enumerate((way, inside) for way in WAYS for inside in (True, False))
    ]  # fmt: skip


@pytest.mark.parametrize(("site", "inside"), _slow_but_first(), indirect=["site"])
def test_a_build_in_which_one_file_changed_executes_what_that_file_needs(site: Site, inside: bool) -> None:
    first = site.build(inside=inside)
    assert len(first) >= site.way.fewest
    site.shell(site.way.clean)
    site.shell(site.way.change)
    executed = site.build(inside=inside)
    others = [call for call in executed if not any(part in call for part in site.way.executed)]
    assert others == []
    assert any(site.way.executed[0] in call for call in executed)
    assert len(executed) < len(first)
