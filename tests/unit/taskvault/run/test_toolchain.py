from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskvault.run.input_tree import digest_file
from taskvault.run.toolchain import COMPILER, ProgramMissing, Surroundings, find_program, toolchain_of
from tvfs.plugin_api import PluginRegistry

HASH = PluginRegistry().hash_function("blake3")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    return directory


def program(directory: Path, name: str, content: str) -> Path:
    path = directory / name
    path.write_text(content)
    path.chmod(0o755)
    return path


def toolchain(arguments: Sequence[str], tools: Path, **variables: str) -> set[str]:
    surroundings = Surroundings({"PATH": str(tools), **variables}, tools.parent)
    with ThreadPoolExecutor(2) as executor:
        found = toolchain_of(arguments, surroundings, digest_of=lambda p: digest_file(p, HASH), executor=executor)
    return {role.split()[-1].removeprefix("#!") for role in found.digests}


def test_a_script_brings_its_interpreter(tools: Path) -> None:
    interpreter = program(tools, "interp", "binary")
    program(tools, "script", f"#!{interpreter} -x\n")
    assert toolchain(["script"], tools) == {"script", "interp"}


def test_env_in_a_script_brings_what_it_starts(tools: Path) -> None:
    env = program(tools, "env", "binary")
    program(tools, "interp", "binary")
    program(tools, "script", f"#!{env} -S A=1 interp -x\n")
    assert toolchain(["script"], tools) == {"script", "env", "interp"}


def test_make_brings_the_compilers_that_are_there(tools: Path) -> None:
    for name in ("make", "sh", "ld", "ar", "unrelated"):
        program(tools, name, "binary " + name)
    assert toolchain(["make", "-j2"], tools) == {"make", "sh", "ld", "ar"}


def test_a_compiler_that_is_chosen_by_name_counts(tools: Path) -> None:
    for name in ("make", "tcc", "mycc"):
        program(tools, name, "binary " + name)
    assert toolchain(["make", "CC=tcc -m32"], tools) == {"make", "tcc"}
    assert toolchain(["make"], tools, CC="mycc") == {"make", "mycc"}


def test_a_wrapper_brings_what_it_wraps(tools: Path) -> None:
    for name in ("nice", "gzip"):
        program(tools, name, "binary " + name)
    assert toolchain(["nice", "-n", "5", "gzip", "file"], tools) == {"nice", "gzip"}


def test_a_compiler_is_asked_for_its_parts(tools: Path) -> None:
    parts = tools.parent / "lib"
    parts.mkdir()
    program(parts, "cc1", "binary cc1")
    program(tools, "gcc", f'#!/bin/sh\n[ "$1" = -print-prog-name=cc1 ] && echo {parts}/cc1\n')
    assert {"gcc", "cc1"} <= toolchain(["gcc", "-c", "x.c"], tools)


def test_a_changed_program_changes_its_digest(tools: Path) -> None:
    surroundings = Surroundings({"PATH": str(tools)}, tools)
    digests = []
    with ThreadPoolExecutor(1) as executor:
        for content in ("one", "two"):
            program(tools, "tool", content)
            made = toolchain_of(["tool"], surroundings, digest_of=lambda p: digest_file(p, HASH), executor=executor)
            digests.append(made.digests)
    assert digests[0] != digests[1]


def test_a_program_that_is_not_there_is_missing(tools: Path) -> None:
    (tools / "data").write_text("not executable")
    assert find_program("data", Surroundings({"PATH": str(tools)}, tools)) is None
    with pytest.raises(ProgramMissing):
        toolchain(["nothing"], tools)


def test_a_name_with_a_slash_is_relative_to_the_working_directory(tools: Path) -> None:
    path = program(tools, "tool", "x")
    assert find_program("./tool", Surroundings({"PATH": ""}, tools)) == path


@pytest.mark.parametrize("name", ["gcc", "cc", "g++-12", "x86_64-linux-gnu-gcc-12", "clang-17", "clang++"])
def test_compilers_are_known_by_name(name: str) -> None:
    assert COMPILER.match(name)


@pytest.mark.parametrize("name", ["ccache", "gccgo.txt", "make", "occ"])
def test_other_programs_are_no_compilers(name: str) -> None:
    assert not COMPILER.match(name)
