"""What a project says of its runs, in the file `.taskvault.toml` at its root.

What it says may make results wrong that would not be, so it is part of every key: with other words nothing is found
that was stored with these.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tvfs.errors import TaskVaultError

FILE_NAME = ".taskvault.toml"
MOST_BYTES = 1 << 20
_ALWAYS_PASSED = frozenset({
    "PWD", "TASKVAULT", "TASKVAULT_HOME", "TASKVAULT_PATIENCE_S", "TASKVAULT_RUN", "TASKVAULT_AUDIT",
    "MAKELEVEL", "MFLAGS", "MAKEFLAGS", "GNUMAKEFLAGS", "CARGO_MAKEFLAGS", "NUM_JOBS",
})  # fmt: skip
"""To every command, strict or not: what the runs themselves, and make's job server, need."""


class ProjectInvalid(TaskVaultError):
    """The project's file does not say what it should."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} cannot be used: {reason}; docs/reference/project.md has all settings.")
        self.path = path


class ProjectRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table `[run]`."""

    environment: list[str] = []
    """Names or patterns of variables that count, though they are the session's."""
    ignored_environment: list[str] = []
    """… that do not count, unless named by `environment` or `--env`."""
    ignored_paths: list[str] = []
    """Neither inputs nor outputs.  Patterns as of fnmatch, `*` matches `/` too; below the root, or `/…`, `~/…`."""
    tool_caches: list[str] = []
    """Outside of the root: read as inputs, and what is written there is dropped."""
    strict: bool = False
    """Commands get only the variables that count."""
    any_user: bool = False
    """Results are shared among users."""
    audit_every: int = 0
    """After one in so many hits the run is audited; 0: never.  Makes no result another, and is in no key."""

    @property
    def text(self) -> str:
        """What is in the key; empty if nothing was said."""
        said = msgspec.json.encode(msgspec.structs.replace(self, audit_every=0), order="sorted").decode()
        return "" if said == "{}" else said

    def counts(self, name: str, *, usually: bool) -> bool:
        """Whether a variable counts that usually does, or does not."""
        if _matches(name, self.environment):
            return True
        return usually and not _matches(name, self.ignored_environment)

    def passed(self, environment: Mapping[str, str], counting: Mapping[str, str]) -> Mapping[str, str]:
        """Return what of the environment the command gets."""
        if not self.strict:
            return environment
        return {name: value for name, value in environment.items() if name in counting or name in _ALWAYS_PASSED}


NO_RULES = ProjectRules()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    run: ProjectRules = NO_RULES


def read_rules(root: Path) -> ProjectRules:
    """Return what the project at a root says; raise `ProjectInvalid`."""
    path = root / FILE_NAME
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return NO_RULES
    except OSError as exc:
        raise ProjectInvalid(path, f"it cannot be read ({exc.strerror})") from exc
    return parse_rules(content, path) if content.strip() else NO_RULES


def parse_rules(content: bytes, path: Path) -> ProjectRules:
    """Return what the content of a file says; raise `ProjectInvalid`."""
    import tomllib  # most projects have no file

    if len(content) > MOST_BYTES:
        raise ProjectInvalid(path, f"it is longer than {MOST_BYTES} bytes")
    try:
        rules = msgspec.convert(tomllib.loads(content.decode("utf-8")), _File).run
    except (ValueError, RecursionError) as exc:  # of decoding, of TOML, of what is said
        raise ProjectInvalid(path, str(exc) or "it is nested too deeply") from exc
    if rules.audit_every < 0:
        raise ProjectInvalid(path, f"audit_every is {rules.audit_every}, and cannot be less than 0")
    for pattern in (*rules.ignored_paths, *rules.tool_caches):
        if not pattern or pattern in ("*", "/", "~", "~/*", "/*", "."):
            raise ProjectInvalid(path, f"the pattern {pattern!r} would take everything")
    return rules


def absolute(pattern: str, root: str, home: str) -> str | None:
    """Return a pattern for whole paths; None for one below a home that is not known."""
    if pattern.startswith("~/"):
        return f"{home.rstrip('/')}{pattern[1:]}" if home else None
    if pattern.startswith("/"):
        return pattern
    # What is special in a pattern may be in the root's own name.
    return os.path.join(fnmatch_escape(root.rstrip("/")), pattern)


def fnmatch_escape(text: str) -> str:
    """Return a pattern that matches only this text."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def _matches(name: str, patterns: list[str]) -> bool:
    return bool(patterns) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
