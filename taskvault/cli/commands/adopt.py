"""`tv adopt`."""

from __future__ import annotations

from pathlib import Path

import click

from taskvault.cli.answers import Adopted
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.output import show, size


@click.command(
    epilog=notes(
        "tv adopt ~/.cache/ccache --evictable\ntv adopt --undo ~/.cache/ccache",
        "0 moved, 3 no daemon, 4 it cannot be moved (nothing was changed), 5 it could not be read or stored.",
    )
)
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--evictable", is_flag=True, help="Let its files be evicted one by one when room is needed: a cache.")
@click.option("--undo", is_flag=True, help="Move it back to where it was.")
@json_option
@pass_context
def adopt(context: Context, directory: Path, evictable: bool, undo: bool, as_json: bool) -> None:
    """Move the directory DIR under the mount and leave a link in its place.

    Its files lie in MOUNT/work/adopted then, deduplicated and compressed, and programs find them where they
    were.  Nobody may be writing to it meanwhile.  Interrupted, the same command again goes on or back; once it
    is moved, the same command changes nothing.  A directory under the mount is not moved: --evictable marks it
    where it is, and --undo takes the mark away.
    """
    from taskvault import adoption
    from taskvault.cli.progress import waiting

    if undo and evictable:
        raise click.UsageError("--evictable has no meaning with --undo.")
    with context.connect() as client:
        if undo:
            with waiting("moving back"):
                done = adoption.release(client, directory)
        else:
            with waiting("moving"):
                done = adoption.adopt(client, directory, evictable=evictable)
    value = Adopted(
        directory=str(done.directory), place=str(done.place), files=done.files, bytes=done.bytes, undone=undo
    )
    what = f"{done.files} files, {size(done.bytes)}"
    if done.directory == done.place:
        text = f"{'Never' if undo else 'Now'} evicted when room is needed: {what} in {done.directory}."
    elif undo:
        text = f"Moved {what} back to {done.directory}."
    else:
        text = f"Moved {what} to {done.place}; a link leads there."
    show(as_json, value, text)
