"""Every import contract can fail: each is shown a violation, planted in a copy of the sources."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.thinned import thinned

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = {"tvfs": ".", "tvd": ".", "taskvault": ".", "tvplugins": "plugins"}

# Contract, the module that offends, the line that it grows.
PLANTS = [
    ("packages", "tvfs.errors", "import tvd.owner"),
    ("packages", "tvfs.errors", "import taskvault.protocol"),
    ("client-uses-library", "taskvault.cli", "from tvfs.catalog import Catalog"),
    ("client-uses-library", "taskvault.client", "import tvfs.filesystem.locks"),
    ("client-uses-library", "taskvault", "import tvfs.vault"),
    ("client-without-server", "taskvault.cli", "import tvd.owner"),
    ("client-without-server", "taskvault.cli", "import pyfuse3"),
    ("daemon-uses-protocol", "tvd.owner", "import taskvault.cli"),
    ("plugins-use-plugin-api", "tvplugins.hash.blake3", "from tvfs.digest import Digest"),
    ("plugins-use-plugin-api", "tvplugins.hash.blake3", "import tvd"),
    ("no-plugin-by-name", "tvfs.vault", "import tvplugins.hash.blake3"),
    ("no-plugin-by-name", "tvd.owner", "from tvplugins.hash import blake3"),
    ("fuse-in-one-place", "tvfs.filesystem", "import pyfuse3"),
    ("fuse-in-one-place", "tvfs.fuse.mount", "import pyfuse3"),
    ("transports-apart", "tvfs.fuse.kernel.channel", "from tvfs.fuse.intake import Intake"),
    ("system-calls-in-few-places", "tvfs.fuse.kernel.channel", "import ctypes"),
    ("rocksdict-in-one-place", "tvfs.packs", "from rocksdict import Rdict"),
    ("one-assembly", "tvd.owner", "import tvd.assemble"),
    ("testing-is-for-tests", "tvd.owner", "import tvfs.testing"),
    ("vault-layers", "tvfs.packs", "import tvfs.chunks"),
    ("vault-layers", "tvfs.digest", "import tvfs.plugin_api"),
    ("vault-layers", "tvfs.vault", "import tvfs.testing"),
    ("vault-layers", "tvfs.misplaced", ""),
]


def contract_names() -> dict[str, str]:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    sections = {name: config[name] for name in config.sections() if name.count(":") == 2}
    return {name.rsplit(":", 1)[1]: section["name"] for name, section in sections.items()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources and their contracts where they can be spoiled, with the modules that the contracts name."""
    for package, source_root in SOURCE_ROOTS.items():
        shutil.copytree(
            ROOT / source_root / package,
            tmp_path / source_root / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / ".importlinter", tmp_path)
    for module in ("tvd.main", "tvd.assemble", "tvfs.testing"):
        append(tmp_path, module, "")
    return tmp_path


def append(copy: Path, module: str, line: str) -> None:
    """Add a line to a module, making it if it is not there, and the modules that the line imports."""
    path = module_path(copy, module)
    with path.open("a") as stream:
        stream.write(f"\n{line}\n")
    for word in line.split():
        if word.split(".")[0] in SOURCE_ROOTS:
            module_path(copy, word).touch()


def module_path(copy: Path, module: str) -> Path:
    path = copy / SOURCE_ROOTS[module.split(".")[0]] / module.replace(".", "/")
    if path.is_dir():
        return path / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in path.relative_to(copy).parents:
        if parent not in {Path(), Path("plugins")}:
            (copy / parent / "__init__.py").touch()
    return path.with_suffix(".py")


def lint(copy: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    command += ["--no-cache", "--no-logo", *(f"--contract={contract}" for contract in contracts)]
    # The copy must be found before the checkout, which an editable install puts on the path too.
    environ = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'plugins'}", "COLUMNS": "200"}
    return subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, check=False)


def test_the_sources_keep_every_contract(copy: Path) -> None:
    answer = lint(copy)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(("contract", "module", "line"), thinned(PLANTS, one_in=3))
def test_a_planted_violation_breaks_its_contract(copy: Path, contract: str, module: str, line: str) -> None:
    append(copy, module, line)
    answer = lint(copy, contract)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert f"{contract_names()[contract]} BROKEN" in answer.stdout, answer.stdout + answer.stderr


def test_every_contract_has_a_planted_violation() -> None:
    assert set(contract_names()) == {contract for contract, _, _ in PLANTS}


def test_contracts_are_named_as_sentences() -> None:
    assert all(name[0].isupper() and " " in name for name in contract_names().values())
