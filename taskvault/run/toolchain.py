"""Which programs a command is carried out by, and their content: a changed compiler is a miss.

Covered: the program itself; the interpreter of a script, also through `env`; for the tools in the tables below the
programs that they drive, found the way they would find them.  Not covered: shared libraries, system headers, and what a
script starts by itself (docs/design/task-key.md says how to declare those).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tvfs.digest import Digest
from tvfs.errors import TaskVaultError

BUILD_TOOLS = ("sh", "cc", "c++", "gcc", "g++", "clang", "clang++", "cpp", "as", "ld", "ar", "ranlib")
"""What a makefile or a shell script that builds something most often starts."""

DRIVES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("make", "gmake", "bmake", "ninja", "samu", "sh", "bash", "dash", "zsh", "ksh"), BUILD_TOOLS),
    "cmake": (*BUILD_TOOLS, "make", "ninja"),
    "meson": (*BUILD_TOOLS, "ninja"),
    "cargo": ("rustc", "cc", "ld"),
    "rustc": ("cc", "ld"),
}
"""Program to the programs that it starts, looked up in PATH; those that are not installed are left out."""

WRAPPERS = frozenset({"env", "nice", "ionice", "nohup", "setsid", "stdbuf", "taskset", "time", "timeout", "xargs"})
"""Programs that start what their arguments name: each argument that is a program in PATH counts."""

COMPILER = re.compile(r"^(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|cpp)(?:-[\d.]+)?$")
"""Compiler drivers, also with a target before and a version behind, as in `x86_64-linux-gnu-gcc-12`."""

COMPILER_PARTS = ("cc1", "cc1plus", "collect2", "as", "ld")
"""What a compiler driver starts; it is asked where, with `-print-prog-name`."""

CHOICES = ("CC", "CXX", "CPP", "LD", "AR", "AS", "RANLIB")
"""Variables that choose a program, in the environment or as `NAME=VALUE` arguments."""

_SCRIPT_DEPTH = 4
_ASK_TIMEOUT_S = 5.0


class ProgramMissing(TaskVaultError):
    """The command's program is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r}: no such program in PATH.")
        self.name = name


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The programs that count."""

    digests: Mapping[str, str]
    """Role to digest of content: `cc`, `cc cc1`, `script #!python3`."""
    identities: Mapping[Path, tuple[int, ...]]
    """What each file was before it was read: changes when the content may have."""

    def changed(self) -> Path | None:
        """Return a program that is not what it was, or None."""
        return next((path for path, identity in self.identities.items() if _identity(path) != identity), None)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where programs are looked for."""

    environment: Mapping[str, str]
    workdir: Path


def find_program(name: str, surroundings: Surroundings) -> Path | None:
    """Return the file that the shell would start for `name`, or None."""
    if "/" in name:
        path = surroundings.workdir / name
        return path if _is_program(path) else None
    workdir = str(surroundings.workdir)
    for directory in surroundings.environment.get("PATH", os.defpath).split(os.pathsep):
        place = os.path.join(workdir, directory, name)
        if _is_program(place):
            return Path(place)
    return None


def toolchain_of(
    arguments: Sequence[str],
    surroundings: Surroundings,
    *,
    digest_of: Callable[[Path], Digest],
    executor: Executor,
) -> Toolchain:
    """Return every program that counts; raise `ProgramMissing`, or `OSError` for one that cannot be read."""
    program = find_program(arguments[0], surroundings)
    if program is None:
        raise ProgramMissing(arguments[0])
    found = dict(_programs(program, arguments, surroundings))
    # Under the name it was called by: a link named gcc may lead to a wrapper, which passes the question on.
    compilers = [role for role, path in found.items() if _is_compiler(path)]
    asked = executor.map(lambda role: _parts_of(found[role], surroundings), compilers)
    for role, parts in zip(compilers, asked, strict=True):
        found.update((f"{role} {part}", path) for part, path in parts.items())
    real = {role: Path(os.path.realpath(path)) for role, path in found.items()}
    ordered = sorted(set(real.values()))
    identities = {path: _identity(path) for path in ordered}
    digests = dict(zip(ordered, map(str, executor.map(digest_of, ordered)), strict=True))
    return Toolchain({role: digests[path] for role, path in sorted(real.items())}, identities)


def _is_compiler(path: Path) -> bool:
    return bool(COMPILER.match(path.name) or COMPILER.match(os.path.basename(os.path.realpath(path))))


def _identity(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _programs(program: Path, arguments: Sequence[str], surroundings: Surroundings) -> Iterator[tuple[str, Path]]:
    """Yield role and path of each."""
    yield from _with_interpreters(arguments[0], program, surroundings)
    named = {program.name, Path(os.path.realpath(program)).name}
    wanted: list[str] = [tool for name in sorted(named) for tool in DRIVES.get(name, ())]
    if named & WRAPPERS:
        wanted += [word for word in arguments[1:] if word]
        wanted += [tool for word in arguments[1:] for tool in DRIVES.get(os.path.basename(word), ())]
    if wanted:
        wanted += _chosen(arguments[1:], surroundings.environment)
    for name in dict.fromkeys(wanted):
        path = find_program(name, surroundings)
        if path is not None:
            yield from _with_interpreters(name, path, surroundings)


def _chosen(arguments: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    values = [environment[name] for name in CHOICES if environment.get(name)]
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and value and name in CHOICES:
            values.append(value)
    return [word for value in values for word in value.split()]


def _with_interpreters(role: str, program: Path, surroundings: Surroundings) -> Iterator[tuple[str, Path]]:
    path: Path | None = program
    for _ in range(_SCRIPT_DEPTH):
        if path is None:
            return
        yield role, path
        words = _shebang(path)
        if not words:
            return
        interpreter = Path(words[0])
        role = f"{role} #!{interpreter.name}"
        if interpreter.name == "env":
            yield role, interpreter
            # `env -S name`, `env VARIABLE=value name`: the first plain word is the interpreter.
            name = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), None)
            path = find_program(name, surroundings) if name else None
            role = f"{role} {name}"
        else:
            path = interpreter if _is_program(interpreter) else None


def _shebang(path: Path) -> list[str]:
    with open(path, "rb") as file:
        start = file.read(256)
    if not start.startswith(b"#!"):
        return []
    return os.fsdecode(start[2:].split(b"\n", 1)[0]).split()


def _parts_of(compiler: Path, surroundings: Surroundings) -> dict[str, Path]:
    asked = []
    for part in COMPILER_PARTS:
        with suppress(OSError):
            process = subprocess.Popen(
                [str(compiler), f"-print-prog-name={part}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(surroundings.environment),
                cwd=surroundings.workdir,
            )
            asked.append((part, process))
    found = {}
    for part, process in asked:
        try:
            answer, _ = process.communicate(timeout=_ASK_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # something of it lives on and has our pipe
                process.communicate(timeout=_ASK_TIMEOUT_S)
            continue
        name = os.fsdecode(answer).strip()
        path = find_program(name, surroundings) if name else None
        if path is not None:
            found[part] = path
    return found


def _is_program(path: str | Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
