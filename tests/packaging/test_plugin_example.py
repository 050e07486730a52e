"""A stranger's plugins: built, installed beside the wheel of TaskVault, tested by our suites, used, removed, put back.

The fast variant lends the environment the libraries that TaskVault needs; the slow one installs them too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "tests" / "plugin_example"
CHOICES = ["--hash", "sha3", "--compression", "lzma", "--chunking", "lines", "--eviction", "fifo", "--size", "256M"]
TEXT = b"".join(b"line %d of a file that compresses\n" % number for number in range(40_000))


class Environment:
    """A virtual environment in which nothing of the checkout is seen."""

    def __init__(self, home: Path, wheels: dict[str, Path]) -> None:
        self.home = home
        self.wheels = wheels
        self.vault = home / "vault"

    def pip(self, *arguments: str) -> None:
        run([sys.executable, "-m", "pip", "--python", str(self.home / "venv/bin/python"), "-q", *arguments])

    def install(self, *names: str) -> None:
        self.pip("install", "--no-deps", "--no-index", *(str(self.wheels[name]) for name in names))

    def uninstall(self, name: str) -> None:
        self.pip("uninstall", "-y", name)

    def tv(self, *arguments: str, exit_code: int = 0) -> str:
        return run([str(self.home / "venv/bin/tv"), "--home", str(self.vault), *arguments], self.home, exit_code)

    def python(self, *arguments: str, cwd: Path) -> str:
        return run([str(self.home / "venv/bin/python"), *arguments], cwd)


def run(command: list[str], cwd: Path | None = None, exit_code: int = 0) -> str:
    outside = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        command, cwd=cwd, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == exit_code, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of TaskVault and that of the example, by name."""
    out = tmp_path_factory.mktemp("wheels")
    example = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    for source in (ROOT, example):
        run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)])
    return {"taskvault": next(out.glob("taskvault-*.whl")), "tv-example": next(out.glob("tv_example-*.whl"))}


def libraries_lent(home: Path, wheels: dict[str, Path]) -> Environment:
    """An environment that sees the libraries installed here, and neither the checkout nor what points to it."""
    venv.create(home / "venv")
    (packages,) = (home / "venv" / "lib").glob("python*/site-packages")
    # Files that end in .pth count in an environment's own directory only, so ours, which name the checkout, do not.
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Environment(home, wheels)


def libraries_installed(home: Path, wheels: dict[str, Path]) -> Environment:
    """An environment with everything in it, as a user makes it."""
    venv.create(home / "venv")
    made = Environment(home, wheels)
    made.pip("install", "--require-hashes", "-r", str(ROOT / "requirements.lock"))
    lock = (ROOT / "requirements-dev.lock").read_text()
    made.pip("install", *(re.findall(r"^(?:pytest|hypothesis)==[^ \\]+", lock, re.MULTILINE)))
    return made


@pytest.fixture(params=[libraries_lent, pytest.param(libraries_installed, marks=pytest.mark.slow)])
def environment(request: pytest.FixtureRequest, tmp_path: Path, wheels: dict[str, Path]) -> Iterator[Environment]:
    made: Environment = request.param(tmp_path, wheels)
    made.install("taskvault", "tv-example")
    yield made
    if (made.vault / "control.sock").exists():
        made.tv("down")


def test_plugins_of_a_stranger_pass_our_suites_and_keep_a_vault(environment: Environment, tmp_path: Path) -> None:
    tested = shutil.copytree(EXAMPLE / "tests", tmp_path / "example")
    told = environment.python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tested), cwd=tmp_path)
    assert re.search(r"^2\d passed", told, re.MULTILINE), told
    assert "checkout" not in environment.python("-c", "import tvfs; print(tvfs.__file__)", cwd=tmp_path)
    assert str(ROOT) not in environment.python("-c", "import tvfs; print(tvfs.__file__)", cwd=tmp_path)

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text").write_bytes(TEXT)
    environment.tv("init", *CHOICES)
    environment.tv("up", "--no-mount")
    environment.tv("cache", "save", "key", "in")
    listed = {line["name"]: line for line in json.loads(environment.tv("plugins", "--json"))}
    for name in ("sha3", "lzma", "lines", "fifo"):
        assert (listed[name]["distribution"], listed[name]["version"]) == ("tv-example", "1.0")
        assert (listed[name]["state"], listed[name]["needed"]) == ("ok", True)
    assert "number 130" in listed["lzma"]["needed_because"]
    environment.tv("down")
    packs = contents(environment.vault / "packs")

    environment.uninstall("tv-example")
    told = environment.tv("up", "--no-mount", exit_code=5)
    assert "hash plugin 'sha3', which is not installed" in told or "eviction plugin is called 'fifo'" in told
    (environment.vault / "config.toml").unlink(missing_ok=True)
    told = environment.tv("up", "--no-mount", exit_code=5)
    assert "This vault's data needs the hash plugin 'sha3', which is not installed" in told
    assert "`pip install tv-example` (it was tv-example 1.0)" in told
    assert contents(environment.vault / "packs") == packs

    environment.install("tv-example")
    environment.tv("up", "--no-mount")
    environment.tv("cache", "get", "key", "--to", "out")
    assert (tmp_path / "out" / "in" / "text").read_bytes() == TEXT


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}
