"""`tv run`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from taskvault.cli.context import Context, notes, pass_context, scope_option
from taskvault.cli.errors import Refusal, say

MOST_PATIENCE_S = 3600.0

_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python puts in the place of the locale C."""


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=notes(
        "tv run -- make -j8\ntv run --input src --input Makefile --output build -- make -j8",
        "the command's own; 128 + n if signal n ended it; 127 no such command, 126 it cannot be started; 2 usage. "
        "With --check: 1 if the command succeeded and made something else than is stored.",
    ),
)
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="What paths are relative to.")
@click.option("--input", "inputs", multiple=True, metavar="GLOB", help="What the command reads; may be repeated.")
@click.option("--output", "outputs", multiple=True, metavar="GLOB", help="What the command makes; may be repeated.")
@click.option("--env", "variables", multiple=True, metavar="NAME[=VALUE]", help="A variable that counts.")
@scope_option
@click.option("--stdin", "with_stdin", is_flag=True, help="Give the command our stdin; its content counts.")
@click.option("--read-only", is_flag=True, help="Replay, but store nothing new.")
@click.option("--no-store", is_flag=True, help="The same as --read-only.")
@click.option("--refresh", is_flag=True, help="Run in any case, and store the result anew.")
@click.option("--check", is_flag=True, help="Run in any case, and compare with what is stored.")
@click.option("--quiet", is_flag=True, help="No report on stderr.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the report to FILE as JSON."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-- COMMAND...")
@pass_context
def run(  # noqa: PLR0913  # one for each option
    context: Context,
    root: Path | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    variables: tuple[str, ...],
    scope: str,
    with_stdin: bool,
    read_only: bool,
    no_store: bool,
    refresh: bool,
    check: bool,
    quiet: bool,
    json_file: Path | None,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND, or replay what the same command did before with the same inputs.

    What COMMAND reads and makes is traced.  With --input and --output it is declared instead, and not traced.

    Patterns are relative to the root: --root, else the nearest directory above with .taskvault.toml, else with
    .git, else the working directory.  `**` is any number of directories, a directory takes everything below, and
    a pattern that begins with `!` takes paths away.
    """
    from taskvault.run.request import Mode, RunRequest

    if refresh and check:
        raise click.UsageError("--refresh and --check contradict each other")
    mode = Mode.CHECK if check else Mode.REFRESH if refresh else Mode.NORMAL
    from taskvault.run.environment import VariableInvalid, changed_environment
    from taskvault.run.execute import become
    from taskvault.run.patterns import PatternInvalid
    from taskvault.run.project import ProjectInvalid
    from taskvault.run.root import RootInvalid

    given = _callers_environment()
    try:
        environment = changed_environment(given, variables)
        if os.environ.get("TASKVAULT", "").lower() in ("off", "0", "no", "false"):
            return become(command, environment)
        home, workdir = context.home, Path(os.getcwd())
    except VariableInvalid as exc:
        raise click.UsageError(str(exc)) from exc
    except (Refusal, OSError) as exc:
        say(f"running without the vault: {exc if isinstance(exc, Refusal) else 'the working directory is gone'}")
        return become(command, environment)
    request = RunRequest(
        command=command,
        workdir=workdir,
        environment=given,
        root=root,
        inputs=inputs,
        outputs=outputs,
        variables=variables,
        scope=scope,
        with_stdin=with_stdin,
        store=not (no_store or read_only),
        mode=mode,
        quiet=quiet,
    )
    try:
        from taskvault.run.engine import Engine

        return Engine(home, request, report_file=json_file, patience_s=_patience_s()).run()
    except (PatternInvalid, ProjectInvalid, RootInvalid) as exc:
        raise click.UsageError(str(exc)) from exc


def _callers_environment() -> dict[str, str]:
    """Return the variables that we were started with.

    Where the locale is C, Python sets `LC_CTYPE` at its start, for what it starts too: the caller did not.
    """
    environment = dict(os.environ)
    if environment.get("LC_CTYPE") in _COERCED:
        with suppress(OSError):
            given = Path("/proc/self/environ").read_bytes().split(b"\0")
            before = next((each.partition(b"=")[2] for each in given if each.startswith(b"LC_CTYPE=")), None)
            environment.pop("LC_CTYPE")
            if before is not None:
                environment["LC_CTYPE"] = os.fsdecode(before)
    return environment


def _patience_s() -> float | None:
    """Return how long the daemon may take to greet, where that is set: on machines that are often very busy."""
    with suppress(ValueError):
        patience_s = float(os.environ.get("TASKVAULT_PATIENCE_S", ""))
        if 0 < patience_s <= MOST_PATIENCE_S:
            return patience_s
    return None
