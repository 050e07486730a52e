"""A directory for `PATH` in which tools are stand-ins that run the real ones through `tv run`.

A stand-in is the native launcher with its configuration behind it, or a script where that was not compiled.  Beside the
tools lies a stand-in of `tv` itself.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tvfs.errors import TaskVaultError

TOOLS = (
    "cc", "c++", "gcc", "g++", "clang", "clang++", "rustc", "javac", "tsc", "protoc",
)  # fmt: skip
"""What gets a shim if it is installed and nothing is named: tools that make files from files."""

_MARK = "# Made by tv shim: runs the real tool through tv run, or plainly where tv is gone.\n"

LAUNCHER = Path(__file__).parent.parent / "warm" / "native" / "taskvault-launch"
"""Compiled when the package is built or installed for development, where that is possible."""

ITSELF = "tv"

_END = struct.Struct("<I8s")
"""Behind the configuration: its length, and a mark; as in `taskvault/warm/native/launch.c`."""
_END_MARK = b"tvlaunch"
_LOOKED_AT_BYTES = 16_384

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
    if LAUNCHER.exists() and ITSELF not in wanted and _is_ours(directory / ITSELF):
        _write(directory / ITSELF, _launcher("tv", directory / ITSELF, tv))
    return [_write(directory / tool, _shim(directory / tool, tv)) for tool in wanted]


def _shim(place: Path, tv: Path) -> bytes:
    if LAUNCHER.exists():
        return _launcher("shim", place, tv)
    script = _SCRIPT.format(
        mark=_MARK, here=shlex.quote(str(place.parent)), tv=shlex.quote(str(tv)), tool=shlex.quote(place.name)
    )  # fmt: skip
    return os.fsencode(script)


def _launcher(kind: str, place: Path, tv: Path) -> bytes:
    texts = (_MARK, kind, place.name, str(place.parent), sys.executable, str(tv))
    configured = b"".join(os.fsencode(text) + b"\0" for text in texts)
    return LAUNCHER.read_bytes() + configured + _END.pack(len(configured), _END_MARK)


def _write(place: Path, content: bytes) -> Path:
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.chmod(0o755)
    unfinished.rename(place)
    return place


def _is_ours(place: Path) -> bool:
    try:
        with open(place, "rb") as file:
            start = file.read(512)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOOKED_AT_BYTES))
            return _MARK.encode() in start or _MARK.encode() in file.read()
    except FileNotFoundError:
        return True
    except OSError:
        return False
