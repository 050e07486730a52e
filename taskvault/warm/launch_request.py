"""What the launcher sends, read; and what is answered.  Pure.  The bytes are documented in `native/ask.c`."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskvault.run.request import Mode, RunRequest
from tvfs.errors import TaskVaultError

HEADER = struct.Struct("=8s4I")
"""Magic, bytes that follow, umask, number of arguments and of variables."""
MAGIC = b"tvlaunc2"
MOST_BYTES = 16 << 20

NOT_HERE = b"N"
MISSED = b"M"
GO = b"G"

MOST_REPORT_BYTES = 65_536
MOST_INLINE_BYTES = 65_536
"""More goes through a file in memory: nobody waits for whoever reads it."""

_DONE = struct.Struct("=c4I")
_PART = struct.Struct("=BI")
_HOME = "--home"
_FLAGS = {"--quiet": "quiet", "--no-store": "keep", "--read-only": "keep", "--refresh": "refresh"}
_WITH_VALUE = ("--root", "--scope", "--env")


class NotUnderstood(TaskVaultError):
    """Who asks is not our launcher, or of another version, or asks for what Python must do."""

    def __init__(self) -> None:
        super().__init__("The warm process does not understand what it is asked; the launcher goes on without it.")


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What somebody wants to have replayed."""

    identity: str
    umask: int
    arguments: tuple[str, ...]
    """Of `tv`."""
    environment: Mapping[str, str]

    @property
    def home(self) -> str:
        """Which vault is meant, an absolute path, as the launcher finds it."""
        named = self._split_home()[0] or self.environment.get("TASKVAULT_HOME")
        return os.path.abspath(named or f"{self.environment.get('HOME', '')}/.taskvault")

    @property
    def behind_home(self) -> tuple[str, ...]:
        """The arguments behind a vault that is named before anything else."""
        return self._split_home()[1]

    def _split_home(self) -> tuple[str, tuple[str, ...]]:
        first, *rest = self.arguments or ("",)
        option, equals, value = first.partition("=")
        if option != _HOME or not (equals or rest):
            return "", self.arguments
        return (value, tuple(rest)) if equals else (rest[0], tuple(rest[1:]))


def read_request(header: bytes, body: bytes) -> LaunchRequest:
    """Return the request; raise `NotUnderstood`."""
    _, _, umask, argument_count, variable_count = HEADER.unpack(header)
    texts = [os.fsdecode(text) for text in body.split(b"\0")]
    if len(texts) != 2 + argument_count + variable_count or texts.pop():
        raise NotUnderstood
    environment: dict[str, str] = {}
    for variable in texts[1 + argument_count :]:
        name, equals, value = variable.partition("=")
        if equals:
            # Of two with the same name Python takes the first.
            environment.setdefault(name, value)
    return LaunchRequest(texts[0], umask, tuple(texts[1 : 1 + argument_count]), environment)


def run_request(asked: LaunchRequest, workdir: Path) -> RunRequest:
    """Return what `tv run` with these arguments is to do; raise `NotUnderstood` for all but the plainest options."""
    words = iter(asked.behind_home)
    if next(words, "") != "run":
        raise NotUnderstood
    flags: set[str] = set()
    values: dict[str, list[str]] = {name: [] for name in _WITH_VALUE}
    for word in words:
        if word == "--":
            break
        if word in _FLAGS:
            flags.add(_FLAGS[word])
        elif word in values:
            values[word].append(next(words, ""))
        else:
            raise NotUnderstood
    command = tuple(words)
    if not command or not all(all(each) for each in values.values()):
        raise NotUnderstood
    return RunRequest(
        command=command,
        workdir=workdir,
        environment=asked.environment,
        root=Path(values["--root"][-1]) if values["--root"] else None,
        inputs=(),
        outputs=(),
        variables=tuple(values["--env"]),
        scope=values["--scope"][-1] if values["--scope"] else "main",
        with_stdin=False,
        store="keep" not in flags,
        mode=Mode.REFRESH if "refresh" in flags else Mode.NORMAL,
        quiet="quiet" in flags,
    )


def packed_parts(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """Return what is to be written to which stream, as the launcher reads it."""
    return b"".join(_PART.pack(stream, len(part)) + part for stream, part in parts if part)


def done(status: int, status_if_lost: int, report: bytes, parts: bytes) -> Sequence[bytes]:
    """Return the answer in one piece for the socket, and what belongs into a file in memory, if anything."""
    head = _DONE.pack(b"D", status, status_if_lost, len(report), len(parts)) + report
    return (head + parts, b"") if len(parts) <= MOST_INLINE_BYTES else (head, parts)
