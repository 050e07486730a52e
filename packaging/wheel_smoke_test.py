"""Build the wheel, install it where nothing of the checkout is seen, and start every command.

Run by `make wheel-test`.  Exit status 0 means that a stranger who installs the wheel has a working product.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ["tvfs", "tvd", "taskvault", "tvplugins"]

LOAD_ENTRY_POINTS = """
from importlib.metadata import distribution
points = [p for p in distribution("taskvault").entry_points]
for point in points:
    target = point.load()
    assert callable(target), point
    print("  loads:", point.group, point.name)
assert len(points) >= 9, points
"""

TRY_TRACERS = """
from tvfs.plugin_api import PluginRegistry
for name in ("native", "strace"):
    print("  traces:", name, PluginRegistry().tracer(name).trouble() or "works here")
assert not PluginRegistry().tracer("native").trouble()
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="taskvault-wheel-") as name:
        clean = Path(name)
        wheel = build(clean)
        inspect(wheel)
        python = install(clean, wheel)
        start_every_command(python, clean)
    print("wheel: good")


def build(clean: Path) -> Path:
    """Build from the files that git knows or would, so that leftovers of the checkout cannot slip in."""
    print("wheel: building in a clean copy")
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    for relative in filter(None, listed.split("\0")):
        # A file that git lists may have been deleted and not yet committed.
        if (ROOT / relative).is_file():
            (clean / "source" / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / relative, clean / "source" / relative)
    out = clean / "dist"
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(clean / "source")])
    (wheel,) = out.glob("*.whl")
    return wheel


def inspect(wheel: Path) -> None:
    """Check that the wheel holds the packages, typed and licensed, and nothing else."""
    names = zipfile.ZipFile(wheel).namelist()
    print(f"wheel: {wheel.name}, {len(names)} files, {wheel.stat().st_size / 1024:.0f} KiB")
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    manual = f"{metadata.removesuffix('.dist-info')}.data/data/share/man/"
    tv = f"{metadata.removesuffix('.dist-info')}.data/scripts/tv"
    ours = (f"{metadata}/", manual, tv, *(f"{package}/" for package in PACKAGES))
    strangers = [name for name in names if not name.startswith(ours)]
    assert not strangers, f"in the wheel but of no package: {strangers}"
    travelled = [name for name in names if {"tests", "docs", "__pycache__"} & set(name.split("/"))]
    assert not travelled, f"not for users: {travelled}"
    for package in PACKAGES:
        assert f"{package}/__init__.py" in names, f"{package} is missing"
        assert f"{package}/py.typed" in names, f"{package} is not marked as typed"
    assert f"{metadata}/licenses/LICENSE" in names, "the licence is missing"


def install(clean: Path, wheel: Path) -> Path:
    print("wheel: installing with the locked dependencies in a fresh environment")
    venv.create(clean / "venv", with_pip=True)
    python = clean / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(ROOT / "requirements.lock")])
    run([*pip, "--no-deps", str(wheel)])
    run([str(python), "-m", "pip", "check", "--disable-pip-version-check"])
    return python


def start_every_command(python: Path, clean: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    print(run([str(python), "-c", LOAD_ENTRY_POINTS], cwd=clean), end="")
    for command in ("tv", "taskvault"):
        said = run([str(python.parent / command), "--version"], cwd=clean)
        assert version in said, f"{command} --version says {said!r}, not {version}"
    for command in ("tv", "taskvault", "tvd"):
        assert run([str(python.parent / command), "--help"], cwd=clean).strip(), f"{command} --help says nothing"
        print(f"  starts: {command}")
    print(run([str(python), "-c", TRY_TRACERS], cwd=clean), end="")


def run(command: list[str], cwd: Path | None = None) -> str:
    # Without the checkout's own environment, or the test would find the sources and not the wheel.
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"wheel: failed with {done.returncode}: {' '.join(command)}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
