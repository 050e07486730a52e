"""The inputs: made once, from a seed or from a package registry, and kept between runs."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

from benchmarks.pairs import run
from benchmarks.workplace import fresh

REAL_TREE = (
    "numpy==2.3.5",
    "scipy==1.16.3",
    "pandas==2.3.3",
    "pyarrow==22.0.0",
    "scikit-learn==1.7.2",
    "matplotlib==3.10.7",
    "llvmlite==0.45.1",
    "numba==0.62.1",
    "sympy==1.14.0",
    "statsmodels==0.14.5",
    "botocore==1.40.70",
    "plotly==6.4.0",
    "opencv-python-headless==4.12.0.88",
    "transformers==4.57.1",
    "scikit-image==0.25.2",
    "django==5.2.8",
)
"""What a data scientist's site-packages looks like: 1.2 GiB, 27,000 files, shared objects and text."""

SOURCES = ("django==5.2.8", "sympy==1.14.0")
NPM = {"core-js": "3.40.0", "date-fns": "4.1.0", "lodash": "4.17.21", "rxjs": "7.8.2"}
"""12,000 files."""


def real_tree(cache: Path) -> Path:
    """Install the real packages into a directory of their own, once."""
    tree = cache / "site-packages"
    if not tree.exists():
        print("  installing the packages of the real tree …", file=sys.stderr, flush=True)
        partial = cache / "site-packages.partial"
        shutil.rmtree(partial, ignore_errors=True)
        run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(partial), *REAL_TREE)
        partial.rename(tree)
    return tree


def small_files(cache: Path, count: int) -> Path:
    """Make a tree of `count` source-like files, 100 a directory, 2 KiB in the median, from a fixed seed."""
    tree = cache / f"small-{count}"
    if not tree.exists():
        chance = random.Random(7)
        words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 10))) for _ in range(5000)]
        partial = cache / f"small-{count}.partial"
        for number in range(count):
            directory = partial / f"module{number // 10000:02d}" / f"package{number // 100 % 100:02d}"
            if number % 100 == 0:
                directory.mkdir(parents=True)
            size = min(65536, max(16, int(chance.lognormvariate(7.6, 1.0))))
            text = b" ".join(chance.choices(words, k=size // 6 + 1))[:size]
            (directory / f"file{number % 100:02d}.c").write_bytes(text)
        partial.rename(tree)
    return tree


def large_files(cache: Path, count: int, size: int, *, seed: int = 11) -> Path:
    """Make `count` files of `size` bytes, half of each incompressible, from a fixed seed."""
    tree = cache / f"large-{count}x{size}-{seed}"
    if not tree.exists():
        chance = random.Random(seed)
        partial = cache / f"{tree.name}.partial"
        partial.mkdir(parents=True)
        for number in range(count):
            with (partial / f"part{number:04d}.bin").open("wb") as file:
                while file.tell() < size:
                    file.write(chance.randbytes(16384))
                    file.write(b"%016d," % chance.getrandbits(50) * 960)
                file.truncate(size)
        partial.rename(tree)
    return tree


def real_file(cache: Path, size: int) -> Path:
    """Make one large file of real bytes: a tar of the real tree, cut at `size`."""
    path = cache / f"real-{size}.tar"
    if not path.exists():
        partial = path.with_suffix(".partial")
        run(
            "sh",
            "-c",
            'tar -C "$1" -cf - . 2>/dev/null | head -c "$2" >"$3"',
            "sh",
            str(real_tree(cache)),
            str(size),
            str(partial),
        )
        os.rename(partial, path)
    return path


def archive(tree: Path) -> Path:
    """Make `tar --zstd` of a tree beside it, once."""
    path = tree.with_name(tree.name + ".tar.zst")
    if not path.exists():
        run("tar", "--zstd", "-C", str(tree), "-cf", str(path), ".")
    return path


def plain_archive(tree: Path) -> Path:
    """Make `tar` of a tree beside it, once."""
    path = tree.with_name(tree.name + ".tar")
    if not path.exists():
        run("tar", "-C", str(tree), "-cf", str(path), ".")
    return path


def repository(cache: Path) -> Path:
    """Make a git repository of real sources, 5,200 files in one pack, once."""
    tree = cache / "repository"
    if not tree.exists():
        partial = fresh(cache / "repository.partial")
        run(
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-compile",
            "--target",
            str(partial),
            *SOURCES,
        )
        git = ("git", "-C", str(partial), "-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
        run("git", "init", "-q", str(partial))
        run(*git, "add", "--all")
        run(*git, "commit", "-q", "-m", "sources")
        run(*git, "gc", "-q")
        partial.rename(tree)
    return tree


def npm_project(cache: Path) -> Path:
    """Make a project with its lock file and fill npm's cache with its packages, once; needs npm and its registry."""
    project = cache / "npm-project"
    if not (project / "node_modules").exists():
        project.mkdir(exist_ok=True)
        (project / "package.json").write_text(
            json.dumps({"name": "benchmark", "version": "1.0.0", "dependencies": NPM})
        )
        run("npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", cwd=str(project))
        run(*npm_ci(cache), cwd=str(project))
    return project


def npm_ci(cache: Path) -> tuple[str, ...]:
    """Return the command that installs what a lock file says, from a cache that is only used here."""
    return "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(cache / "npm-cache")
