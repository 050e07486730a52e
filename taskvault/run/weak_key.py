"""The weak key of a traced run: everything that is known of it before it runs, but for what it will look at.  Pure.

It finds the pathsets of earlier runs; what is found where they say to look makes the strong key.  What is in it, and
why, is in docs/design/task-key.md; a change of meaning here is a new `KEY_FORMAT`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from taskvault.run.as_text import text
from taskvault.run.environment import without_job_options
from taskvault.run.project import NO_RULES, ProjectRules
from taskvault.run.rules import is_session_variable
from tvfs.plugin_api import HashFunction

KEY_FORMAT = b"taskvault traced run 2"


@dataclass(frozen=True, slots=True)
class WeakKey:
    """What it is made from."""

    arguments: Sequence[str]
    workdir: str
    """Relative to the root."""
    program: str
    """Where the first program was found; relative to the root if it lies below it."""
    environment: Mapping[str, str]
    """Variables that count."""
    platform: Mapping[str, str]
    """Properties of the machine, of the caller, and of the way the command is started."""

    def hash(self, hash_function: HashFunction) -> bytes:
        """Return the key."""
        parts = (
            [text(argument) for argument in self.arguments],
            text(self.workdir),
            text(self.program),
            sorted((text(name), text(value)) for name, value in self.environment.items()),
            sorted((text(name), text(value)) for name, value in self.platform.items()),
        )
        return hash_function.digest(KEY_FORMAT + b"\0" + msgspec.msgpack.encode(parts))


def counting(
    environment: Mapping[str, str], named: Iterable[str] = (), project: ProjectRules = NO_RULES
) -> dict[str, str]:
    """Return the variables that count in a traced run: all but those of the session that nobody named."""
    wanted = {each.partition("=")[0] for each in named}
    found = {
        name: value
        for name, value in environment.items()
        if name in wanted or project.counts(name, usually=not is_session_variable(name))
    }
    for name in ("MAKEFLAGS", "GNUMAKEFLAGS"):
        if name in found:
            found[name] = without_job_options(found[name])
            if not found[name]:
                del found[name]
    return found
