"""`tv up`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from taskvault.cli import answers
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.errors import Refusal
from taskvault.cli.output import show
from taskvault.cli.replacement import goes_on, replaced


@click.command(
    epilog=notes(
        "tv up --mount ~/vault",
        "0 up (also if it was before), 3 a daemon is there but does not answer, 4 it is up elsewhere or cannot be "
        "replaced, 5 it could not start.",
    )
)
@click.option("--mount", type=click.Path(path_type=Path), metavar="DIR", help="Where to mount; HOME/mnt unless named.")
@click.option("--no-mount", is_flag=True, help="Serve without a mount, for machines without /dev/fuse.")
@click.option(
    "--replace", is_flag=True, help="If it is up: start it anew, and let programs that use the mount go on meanwhile."
)
@click.option("--foreground", is_flag=True, help="Stay in this terminal; Ctrl-C stops the daemon in order.")
@json_option
@pass_context
def up(context: Context, mount: Path | None, no_mount: bool, replace: bool, foreground: bool, as_json: bool) -> None:
    """Start the daemon and mount the vault; returns when both answer."""
    from taskvault.errors import DaemonUnreachable

    if mount is not None and no_mount:
        raise click.UsageError("--mount and --no-mount contradict each other")
    wanted = None if mount is None else Path(os.path.abspath(mount.expanduser()))
    was_up = True
    try:
        running = _running(context)
    except DaemonUnreachable:
        if not goes_on(context):
            _start(context, wanted, no_mount=no_mount, foreground=foreground, as_json=as_json)
            return
        was_up, running = False, _running(context)
    if wanted is not None and (running is None or os.path.realpath(running) != os.path.realpath(wanted)):
        where = f"at {running}" if running else "without a mount"
        raise Refusal(f"The daemon is already up {where}; stop it with `tv down` to mount it elsewhere.")
    if replace:
        pid = replaced(context)
        show(as_json, answers.Up(home=str(context.home), mount=running, started=True, pid=pid), f"Up{_at(running)}.")
        return
    value = answers.Up(home=str(context.home), mount=running, started=not was_up)
    show(as_json, value, f"{'Already up' if was_up else 'Up'}{_at(running)}.")


def _running(context: Context) -> str | None:
    with context.connect() as client:
        return client.welcome.mount


def _start(context: Context, mount: Path | None, *, no_mount: bool, foreground: bool, as_json: bool) -> None:
    from taskvault.cli.daemon_process import start, tvd_command

    arguments = ["--home", str(context.home)]
    arguments += ["--no-mount"] if no_mount else []
    arguments += ["--mount", str(mount)] if mount else []
    if not (no_mount or foreground):
        # Keeps the mount if the daemon is killed or replaced.  A terminal would send signals to both.
        arguments = ["--caretaker", *arguments]
    if foreground:
        command = tvd_command([*arguments, "--foreground"])
        os.execvp(command[0], command)  # noqa: S606  # to become it is the point
    started = start(arguments)
    value = answers.Up(home=str(context.home), mount=started.mount, started=True, pid=started.pid)
    show(as_json, value, f"Up{_at(started.mount)}.")


def _at(mount: str | None) -> str:
    return f", mounted at {mount}" if mount else ", without a mount"
