"""Why a command runs without the vault, or is not stored; and how its lost output shows in the exit status."""

from __future__ import annotations

WRITE_TROUBLE = 5
"""Exit status of a run that succeeded, but whose output could not be passed on; as the other commands have it."""


class RunPlainly(Exception):
    """The vault cannot be used after all: the command is to run without it."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(reason)
        self.reason = reason


class RunUnstored(Exception):
    """What counts cannot be known: the command is to run, and nothing to be stored."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
