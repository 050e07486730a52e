"""The command tree: a name, where its code is, one line for the list.  Code is imported when its command is typed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from taskvault.cli.context import named_vault, notes
from taskvault.cli.errors import Terminated, report
from taskvault.cli.exit_codes import ExitCode


class CommandPlace(NamedTuple):
    """Where a command's code is."""

    module: str
    """Below `taskvault.cli.commands`."""
    attribute: str
    summary: str


COMMANDS: dict[str, CommandPlace] = {
    "init": CommandPlace("init", "init", "make a vault"),
    "up": CommandPlace("up", "up", "start the daemon and mount; returns when both answer"),
    "down": CommandPlace("down", "down", "flush, unmount, stop"),
    "status": CommandPlace("status", "status", "state of the daemon"),
    "stats": CommandPlace("status", "stats", "figures of the daemon"),
    "run": CommandPlace("run", "run", "run a command, or replay what it did before"),
    "shim": CommandPlace("shim", "shim", "a directory for PATH that runs tools through tv run"),
    "why": CommandPlace("why", "why", "why a run hit, missed or was not stored"),
    "runs": CommandPlace("why", "runs", "history of runs and the time they saved"),
    "cache": CommandPlace("cache", "cache", "save paths under a key, get them back"),
    "snapshot": CommandPlace("trees", "snapshot", "keep a directory as it is now"),
    "attach": CommandPlace("trees", "attach", "give a directory the content of a snapshot, at once"),
    "rm": CommandPlace("trees", "rm", "remove a path under the mount, at once"),
    "adopt": CommandPlace("adopt", "adopt", "move a directory under the mount, leaving a link"),
    "hash": CommandPlace("trees", "hash_paths", "the digest of files and directories; for building keys"),
    "du": CommandPlace("sizes", "du", "what paths under the mount take, or the whole vault"),
    "show": CommandPlace("sizes", "show_path", "everything about a path under the mount"),
    "gc": CommandPlace("gc", "gc", "remove what nothing wants any more, and compact"),
    "verify": CommandPlace("verify", "verify", "read all content and verify it, while the daemon serves"),
    "fsck": CommandPlace("fsck", "fsck", "check a stopped vault whole, and repair it"),
    "audit": CommandPlace("audit", "audit", "what changed entries, and whether the log of it is whole"),
    "top": CommandPlace("top", "top", "what the daemon is doing, live"),
    "config": CommandPlace("config", "config", "show or check the settings"),
    "completion": CommandPlace("completion", "completion", "make the shell complete our command lines"),
    "plugins": CommandPlace("plugins", "plugins", "which plugins are installed, and whether the vault needs them"),
    "doctor": CommandPlace("doctor", "doctor", "check that this machine can run a vault"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used, so that one command does not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command: click.Command = getattr(import_module(f"taskvault.cli.commands.{place.module}"), place.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; name the nearest one if there is none."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            raise click.UsageError(
                f"There is no command {args[0]!r}" + (f", did you mean {near[0]!r}?" if near else ""), ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=notes("tv init && tv up\ntv run --input src --output build -- make"),
)
@click.option("--home", metavar="DIR", help="The vault; default $TASKVAULT_HOME, else ~/.taskvault.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda *a: _print_version(*a),
    help="Print the version.",
)
@click.pass_context
def application(ctx: click.Context, home: str | None) -> None:
    """Identical work is never done twice."""
    ctx.obj = named_vault(home)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line and return its exit status; errors are told on stderr."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold any bytes; they are written as they are.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    # The `try` is outermost: a signal may come while the handlers are being installed or taken away.
    try:
        with _signals_as_exceptions():
            status = application.main(list(arguments), prog_name="tv", standalone_mode=False)
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Terminated) as exc:  # noqa: BLE001  # the outermost line of the program: everything ends as a sentence
        return report(exc)
    return status if isinstance(status, int) else ExitCode.OK


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield the commands by what is typed after `tv`, those of groups one by one: `cache save`."""
    for name in COMMANDS:
        command = application.get_command(click.Context(application), name)
        assert command is not None
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", command.commands[inner]) for inner in command.commands)


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """In the body, signals that end us let us clean up first; those that are ignored stay so."""
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate, signal.SIGHUP: _terminate}
    changed = [number for number in wanted if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in changed:
            signal.signal(number, wanted[number])
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, _frame: object) -> NoReturn:
    raise Terminated(number)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"taskvault {version('taskvault')}")
        ctx.exit()
