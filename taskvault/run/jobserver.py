"""Descriptors through which make and cargo share how many jobs run at once: a command gets those, and no others."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

_SHARED = re.compile(r"--jobserver-(?:auth|fds)=(\d+),(\d+)(?:\s|\Z)")
_VARIABLES = ("MAKEFLAGS", "CARGO_MAKEFLAGS")


def jobserver_descriptors(environment: Mapping[str, str]) -> tuple[int, ...]:
    """Return the pipes that the environment names, if our caller gave them to us.

    What a command reads there says when it may start a job, and nothing of what it makes.
    """
    return tuple(number for number in named_descriptors(environment) if _is_given_pipe(number))


def named_descriptors(environment: Mapping[str, str]) -> tuple[int, ...]:
    """Return the numbers that the environment names, whatever they are."""
    named = {
        int(number)
        for variable in _VARIABLES
        for match in _SHARED.finditer(environment.get(variable, ""))
        for number in match.groups()
    }
    return tuple(sorted(number for number in named if number > 2))


def _is_given_pipe(descriptor: int) -> bool:
    try:
        # All that we open ourselves is closed for what we start.
        return os.get_inheritable(descriptor) and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except (OSError, OverflowError):
        return False
