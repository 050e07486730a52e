"""A directory for `PATH` in which tools are scripts that run the real ones through `tv run`."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tvfs.errors import TaskVaultError

TOOLS = (
    "cc", "c++", "gcc", "g++", "clang", "clang++", "rustc", "javac", "tsc", "protoc",
)  # fmt: skip
"""What gets a shim if it is installed and nothing is named: tools that make files from files."""

_MARK = "# Made by tv shim: runs the real tool through tv run, or plainly where tv is gone.\n"

_SCRIPT = """#!/bin/sh
{mark}here={here}
rest=":$PATH:"
while :; do
  case "$rest" in
    *":$here:"*) rest="${{rest%%":$here:"*}}:${{rest#*":$here:"}}" ;;
    *) break ;;
  esac
done
rest="${{rest#:}}"
PATH="${{rest%:}}"
export PATH
[ -x {tv} ] && exec {tv} run --quiet -- {tool} "$@"
exec {tool} "$@"
"""


class ShimImpossible(TaskVaultError):
    """A shim cannot be made; the message says why."""


def make_shims(directory: Path, tools: Sequence[str], tv: Path, environment: Mapping[str, str]) -> list[Path]:
    """Make a shim for each tool, or for each of `TOOLS` that is installed; return them.

    Raise `ShimImpossible` for a tool that is not installed or no plain name, and where something else is in the way.
    """
    directory = Path(os.path.abspath(directory))
    listed = environment.get("PATH", os.defpath).split(os.pathsep)
    search = os.pathsep.join(each for each in listed if os.path.abspath(each) != str(directory))
    wanted = tools or [tool for tool in TOOLS if shutil.which(tool, path=search)]
    for tool in wanted:
        if not tool or "/" in tool:
            raise ShimImpossible(f"{tool!r} is no name of a tool; give one as it is typed, without a directory.")
        if shutil.which(tool, path=search) is None:
            raise ShimImpossible(f"{tool!r} is not in PATH; install it first, or leave it out.")
        if not _is_ours(directory / tool):
            raise ShimImpossible(f"{directory / tool} is there and no shim; remove it, or choose another directory.")
    directory.mkdir(parents=True, exist_ok=True)
    return [_write(directory / tool, tv) for tool in wanted]


def _write(place: Path, tv: Path) -> Path:
    script = _SCRIPT.format(
        mark=_MARK, here=shlex.quote(str(place.parent)), tv=shlex.quote(str(tv)), tool=shlex.quote(place.name)
    )  # fmt: skip
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    unfinished.write_text(script, encoding="utf-8", errors="surrogateescape")
    unfinished.chmod(0o755)
    unfinished.rename(place)
    return place


def _is_ours(place: Path) -> bool:
    try:
        return _MARK.encode() in place.read_bytes()[:512]
    except FileNotFoundError:
        return True
    except OSError:
        return False
