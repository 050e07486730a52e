"""A page of documentation as a script: its files are written, its commands run, what it shows is looked for.

A fenced block whose paragraph above names a file with a slash or an ending in backticks is that file; a `console` block
holds commands after `$ `, each with what its output must contain below it, word by word.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w./-]*[./][\w-]+)`")
COMMAND_TIMEOUT_S = 100.0


@dataclass(frozen=True)
class File:
    """A file that the reader makes."""

    path: str
    text: str


@dataclass
class Command:
    """A command that the reader types, and lines that must then be seen."""

    line: str
    shown: list[str] = field(default_factory=list)


def steps_of(page: Path) -> list[File | Command]:
    """Return what a reader does, in order."""
    text = page.read_text()
    steps: list[File | Command] = []
    end = 0
    for block in FENCE.finditer(text):
        above, end = text[end : block.start()], block.end()
        if block.group(1) == "console":
            steps += _commands(block.group(2))
        elif block.group(1):
            named = FILE.findall(above)
            assert named, f"{page.name}: no file is named above {block.group(2)[:40]!r}"
            steps.append(File(named[0] if above.strip().startswith(f"`{named[0]}`") else named[-1], block.group(2)))
    return steps


def _commands(block: str) -> list[File | Command]:
    commands: list[File | Command] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:]))
        else:
            last = commands[-1]
            assert isinstance(last, Command)
            last.shown.append(line)
    return commands


class Shell:
    """One shell for all commands of a page, as a reader has."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, line: str) -> str:
        """Return what the command writes; it must succeed."""
        assert self._process.stdin is not None
        mark = f"::{os.urandom(8).hex()}::"
        self._process.stdin.write(f"{{ {line}\n}} < /dev/null\necho {mark}$?\n".encode())
        self._process.stdin.flush()
        written = self._read_until(mark)
        output, _, status = written.rpartition(mark)
        assert int(status) == 0, f"`{line}` ended with {status.strip()}:\n{output}"
        return output

    def close(self) -> None:
        """End the shell."""
        self._process.communicate(timeout=10)

    def _read_until(self, mark: str) -> str:
        assert self._process.stdout is not None
        read = b""
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while not re.search(re.escape(mark).encode() + rb"\d+\n$", read):
            assert time.monotonic() < deadline, f"no end of:\n{read.decode()}"
            if select.select([self._process.stdout], [], [], 1.0)[0]:
                part = os.read(self._process.stdout.fileno(), 65536)
                assert part, f"the shell ended:\n{read.decode()}"
                read += part
        return read.decode()


def follow(page: Path, cwd: Path, environment: dict[str, str], after: dict[str, str] | None = None) -> None:
    """Do what a page says; `after` maps a command to what the test does besides, when it was run."""
    shell = Shell(cwd, environment)
    try:
        for step in steps_of(page):
            if isinstance(step, File):
                path = cwd / step.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(step.text)
                continue
            output = shell.run(step.line)
            if after is not None and step.line in after:
                shell.run(after[step.line])
            for shown in step.shown:
                assert _is_in(shown, output), f"`{step.line}` does not show\n{shown!r} but\n{output}"
    finally:
        shell.close()


def _is_in(shown: str, output: str) -> bool:
    """Whether a line of the page is in the output: spaces count as one, and `…` stands for anything."""
    pattern = r"\s+".join(re.escape(word).replace("…", ".*") for word in shown.split())
    return bool(re.search(pattern, output))
