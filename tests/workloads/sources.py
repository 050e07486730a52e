"""What the workloads are made of, fetched once by the ordinary package clients into a cache and pinned by version.

Programs come from the system's packages (`make workloads` installs them); everything here is data.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

PYTHON_PACKAGES = ("numpy==1.26.4", "sphinx==7.4.7", "pytest==8.3.4")
NODE_PACKAGES = ("typescript@5.4.5", "date-fns@3.6.0", "rxjs@7.8.1", "@types/node@20.14.2")
RELEASES = {
    "ncurses": ("6.4-4", "6931283d9ac87c5073f30b6290c4c75f21632bb4fc3603ac8100812bed248159"),
    "json-c": ("0.16-2", "3ecaeedffd99a60b1262819f9e60d7d983844073abc74e495cb822b251904185"),
}
"""Debian's source packages: their version, and the SHA-256 of the release as its authors made it."""

FETCH_TIMEOUT_S = 600.0


class SourceMissing(Exception):
    """Something cannot be fetched; the message says what and why."""


def cache() -> Path:
    """Return the directory that is kept between runs."""
    place = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "taskvault-tests" / "workloads"
    place.mkdir(parents=True, exist_ok=True)
    return place


def release(package: str) -> Path:
    """Return the unpacked release of `package`."""
    version, sha256 = RELEASES[package]
    return _once(f"{package}-{version}", lambda place: _unpack(_download_release(package, version, sha256), place))


def python_environment() -> Path:
    """Return a virtual environment with the Python packages."""

    def make(place: Path) -> None:
        _run([sys.executable, "-m", "venv", str(place)])
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *PYTHON_PACKAGES])

    return _once("python-" + _short(PYTHON_PACKAGES), make, movable=False)


def node_modules() -> Path:
    """Return a directory with `node_modules`."""

    def make(place: Path) -> None:
        place.mkdir()
        (place / "package.json").write_text('{"name": "workload", "private": true}\n')
        _run(["npm", "install", "--silent", "--ignore-scripts", "--save-exact", *NODE_PACKAGES], cwd=place)

    return _once("node-" + _short(NODE_PACKAGES), make)


def _once(name: str, make: Callable[[Path], None], *, movable: bool = True) -> Path:
    """Make a directory if it is not there; it appears complete or not at all."""
    place = cache() / name
    complete = place.with_name(f"{name}.complete")
    if complete.exists():
        return place
    unfinished = place.with_name(f"{name}.partial") if movable else place
    for old in (unfinished, place):
        shutil.rmtree(old, ignore_errors=True)
    make(unfinished)
    if movable:
        unfinished.rename(place)
    complete.touch()
    return place


def _short(names: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]


def _unpack(archive: Path, place: Path) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(place.with_suffix(".all"), filter="data")
    (inside,) = place.with_suffix(".all").iterdir()
    inside.rename(place)
    place.with_suffix(".all").rmdir()


def _download_release(package: str, version: str, sha256: str) -> Path:
    """Return the archive, fetched by apt from where it has its packages, without changing what apt knows."""
    place = cache() / f"{package}-{version}.apt"
    lists = place / "lists" / "partial"
    lists.mkdir(parents=True, exist_ok=True)
    listed = _run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) main",
                   "Created-By: Packages", "Component: main"])  # fmt: skip
    # Trusted because the hash of what comes is pinned, which says more than who signed the list.
    (place / "sources.list").write_text("".join(f"deb-src [trusted=yes] {line}\n" for line in listed.splitlines()))
    settings = {
        "Dir::Etc::SourceList": place / "sources.list", "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": lists.parent, "Dir::Cache::srcpkgcache": "", "Dir::Cache::pkgcache": "",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "-qq", "update"])
    _run(["apt-get", *options, "-qq", "source", "--download-only", f"{package}={version}"], cwd=place)
    (archive,) = (path for path in place.glob("*.orig.tar.*") if path.suffix != ".asc")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise SourceMissing(f"{archive.name} has the SHA-256 {found} instead of {sha256}")
    return archive


def _run(command: Sequence[str], *, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise SourceMissing(f"{' '.join(command[:4])} failed: {said[-1]}")
    return done.stdout


SOURCES: dict[str, Callable[[], Path]] = {
    "ncurses": lambda: release("ncurses"),
    "json_c": lambda: release("json-c"),
    "python": python_environment,
    "node": node_modules,
}
"""By the names that workloads use."""
