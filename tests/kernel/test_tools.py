"""What ordinary tools do, on a mount: they must neither notice nor lose anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel


def run(*command: str | Path, cwd: Path) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, timeout=30, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_tree(root: Path) -> None:
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "sub" / "empty").mkdir()
    for number in range(50):
        (root / "sub" / f"file-{number}").write_bytes(os.urandom(number * 997))
    (root / "sub" / "deeper" / "program").write_text("#!/bin/sh\necho hello\n")
    (root / "sub" / "deeper" / "program").chmod(0o755)
    os.link(root / "sub" / "file-3", root / "linked")
    (root / "symlink").symlink_to("sub/file-4")
    os.utime(root / "sub" / "file-5", ns=(5, 1_600_000_000_123_456_789))


def test_tar_brings_back_what_it_packed(place: Path, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    run("tar", "--format=pax", "-cf", tmp_path / "packed.tar", "tree", cwd=tmp_path)
    run("tar", "-xpf", tmp_path / "packed.tar", cwd=place)
    assert run("diff", "-r", "--no-dereference", tmp_path / "tree", place / "tree", cwd=place) == ""
    assert run("tar", "-df", tmp_path / "packed.tar", cwd=place) == ""
    assert os.path.samefile(place / "tree" / "linked", place / "tree" / "sub" / "file-3")
    assert run(place / "tree" / "sub" / "deeper" / "program", cwd=place) == "hello\n"


def test_cp_keeps_everything(place: Path, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    run("cp", "-a", tmp_path / "tree", place / "in", cwd=place)
    run("cp", "-a", place / "in", tmp_path / "out", cwd=place)
    listing = ["find", ".", "-printf", "%p %y %m %s %n %T@ %l\n"]
    # The size of a directory is each filesystem's own affair.
    listing = ["find", ".", "-type", "d", "-printf", "%p %m %n %T@\n", "-o", *listing[2:]]
    assert sorted(run(*listing, cwd=tmp_path / "tree").splitlines()) == sorted(
        run(*listing, cwd=place / "in").splitlines()
    )
    assert sorted(run(*listing, cwd=tmp_path / "tree").splitlines()) == sorted(
        run(*listing, cwd=tmp_path / "out").splitlines()
    )


def test_git_finds_its_repository_sound(place: Path) -> None:
    repository = place / "repository"
    repository.mkdir()
    make_tree(repository)
    # git knows no empty directories.
    (repository / "sub" / "empty").rmdir()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"]
    run(*git, "init", "-q", cwd=repository)
    run(*git, "add", "-A", cwd=repository)
    run(*git, "commit", "-q", "-m", "first", cwd=repository)
    assert run(*git, "status", "--porcelain", cwd=repository) == ""
    (repository / "sub" / "file-7").write_text("changed")
    assert run(*git, "status", "--porcelain", cwd=repository) == " M sub/file-7\n"
    run(*git, "commit", "-q", "-a", "-m", "second", cwd=repository)
    run(*git, "checkout", "-q", "HEAD~1", cwd=repository)
    run(*git, "gc", "-q", cwd=repository)
    run(*git, "fsck", "--full", "--strict", cwd=repository)
    run(*git, "clone", "-q", repository, place / "clone", cwd=place)
    assert run("diff", "-r", "-x", ".git", "--no-dereference", repository, place / "clone", cwd=place) == ""


MAKEFILE = """
objects = main.o $(patsubst %,part%.o,$(shell seq 1 8))
program: $(objects)
\tcc -o $@ $^
%.o: %.c parts.h
\tcc -c -o $@ $<
"""


def test_make_builds_once_and_then_finds_nothing_to_do(place: Path) -> None:
    numbers = range(1, 9)
    (place / "Makefile").write_text(MAKEFILE)
    (place / "parts.h").write_text("".join(f"int part{n}(void);\n" for n in numbers))
    for n in numbers:
        (place / f"part{n}.c").write_text(f'#include "parts.h"\nint part{n}(void) {{ return {n}; }}\n')
    sum_ = " + ".join(f"part{n}()" for n in numbers)
    (place / "main.c").write_text(
        f'#include <stdio.h>\n#include "parts.h"\nint main(void) {{ printf("%d\\n", {sum_}); return 0; }}\n'
    )
    run("make", "-j4", cwd=place)
    assert run(place / "program", cwd=place) == "36\n"
    assert "up to date" in run("make", "-j4", cwd=place)
    (place / "part3.c").write_text('#include "parts.h"\nint part3(void) { return 103; }\n')
    rebuilt = run("make", cwd=place)
    assert "part3.c" in rebuilt
    assert "part4.c" not in rebuilt
    assert run(place / "program", cwd=place) == "136\n"
