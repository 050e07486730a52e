"""`tv shim`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from taskvault.cli.answers import Shims
from taskvault.cli.context import json_option, notes
from taskvault.cli.errors import Refusal
from taskvault.cli.output import show


@click.command(epilog=notes("tv shim ~/.local/share/tv-shims gcc g++", "0, 4 if a shim cannot be made."))
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("tools", nargs=-1, metavar="[TOOL]...")
@json_option
def shim(directory: Path, tools: tuple[str, ...], as_json: bool) -> None:
    """Make DIR, a directory for PATH, in which each TOOL runs through `tv run`.

    Without names: the compilers that are installed.  Put DIR first in PATH; every call of a tool is then looked up by
    itself, also inside of `tv run -- make`, so that a build in which one file changed repeats one call.
    """
    from taskvault.run.shims import ShimImpossible, make_shims

    try:
        made = make_shims(directory, tools, _tv(), os.environ)
    except ShimImpossible as exc:
        raise Refusal(str(exc)) from exc
    except OSError as exc:
        raise Refusal(f"The shims cannot be written to {directory}: {exc.strerror}.") from exc
    place = os.path.abspath(directory)
    names = [path.name for path in made]
    lines = [f"{len(made)} shims in {place}: {', '.join(names)}", f'Now: export PATH="{place}:$PATH"']
    show(as_json, Shims(directory=place, tools=names), lines)


def _tv() -> Path:
    """Return the Python program that we are, or the one beside the interpreter that runs us as a module."""
    ours = shutil.which(sys.argv[0]) if os.path.basename(sys.argv[0]) in ("tv", "taskvault") else None
    place = Path(os.path.abspath(ours)) if ours else Path(sys.executable).with_name("taskvault")
    if not os.access(place, os.X_OK):
        raise Refusal(f"There is no program {place} that a shim could run; install taskvault with its scripts.")
    return place
