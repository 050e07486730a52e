"""Which environment variables count: they are in the key of a run, and a change of one is a miss.

The command always gets the caller's whole environment.  A declared run trusts its declaration, so only two kinds of
variables count: those named with `--env`, and those of the list below, which change what common tools make.  `PATH` is
not among them: it decides which programs run, and the content of those programs is in the key instead
(`taskvault.run.toolchain`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from functools import lru_cache

from taskvault.run.project import NO_RULES, ProjectRules
from tvfs.errors import TaskVaultError

ALWAYS_COUNT = (
    # language, time zone, reproducible builds
    "LANG", "LANGUAGE", "LC_*", "TZ", "SOURCE_DATE_EPOCH", "POSIXLY_CORRECT",
    # colours end up in the recorded output
    "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE",
    # make and compilers
    "MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "CC", "CXX", "CPP", "LD", "AR", "AS", "RANLIB", "CFLAGS", "CXXFLAGS",
    "CPPFLAGS", "LDFLAGS", "LDLIBS", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH",
    "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "LD_LIBRARY_PATH", "LD_RUN_PATH", "LD_PRELOAD",
    "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR",
    # other languages
    "RUSTFLAGS", "RUSTC_*", "CARGO_*", "GOFLAGS", "GOOS", "GOARCH", "GOAMD64", "GOARM", "GOEXPERIMENT", "CGO_*",
    "JAVA_TOOL_OPTIONS", "CLASSPATH", "NODE_OPTIONS", "NODE_PATH", "NODE_ENV", "PYTHONPATH", "PYTHONHOME",
    "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT",
)  # fmt: skip
"""Names, or patterns of names, of variables that count in every declared run; published in docs/design/task-key.md."""

_JOB_OPTIONS = ("-j", "-l", "--jobserver-", "--jobs", "--load-average", "--sync-mutex")


class VariableInvalid(TaskVaultError):
    """A `--env` names no variable."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} names no environment variable; write --env NAME or --env NAME=VALUE.")
        self.text = text


def changed_environment(base: Mapping[str, str], named: Iterable[str]) -> dict[str, str]:
    """Return the environment of the command: the caller's, with each `NAME=VALUE` of `named` set."""
    environment = dict(base)
    for text in named:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise VariableInvalid(text)
        if equals:
            environment[name] = value
    return environment


def counting_variables(
    environment: Mapping[str, str], named: Iterable[str], rules: ProjectRules = NO_RULES
) -> dict[str, str]:
    """Return the variables that are in the key, by name; a variable that is not set is not among them."""
    wanted = {text.partition("=")[0] for text in named}
    counting = {
        name: value
        for name, value in environment.items()
        if name in wanted or rules.counts(name, usually=_always_counts(name))
    }
    if "MAKEFLAGS" in counting and "MAKEFLAGS" not in wanted:
        counting["MAKEFLAGS"] = without_job_options(counting["MAKEFLAGS"])
    return counting


@lru_cache(4096)
def _always_counts(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in ALWAYS_COUNT)


def without_job_options(flags: str) -> str:
    """Return `MAKEFLAGS` without what says how many jobs run at once."""
    # How many jobs run at once, and through which descriptors make shares them, says nothing about what is made.
    # After `--` come variables, whose values may look like options.
    options, dashes, variables = f" {flags} ".partition(" -- ")
    kept = " ".join(word for word in options.split() if not word.startswith(_JOB_OPTIONS))
    return f"{kept}{dashes}{variables.rstrip()}"
