"""`tv init`."""

from __future__ import annotations

from pathlib import Path

import click

from taskvault.cli.answers import Made
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.output import show


@click.command(epilog=notes("tv init --size 20G", "0 made, 2 usage, 5 it could not be made."))
@click.argument("directory", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--size", metavar="SIZE", help="The vault never takes more of the disk, e.g. 50G.")
@click.option("--hash", "hash_name", metavar="NAME", help="Hash plugin; blake3 unless named.")
@click.option("--compression", metavar="NAME", help="Compression plugin; zstd unless named.")
@click.option("--chunking", metavar="NAME", help="Chunking plugin; fastcdc unless named.")
@click.option("--eviction", metavar="NAME", help="Eviction plugin, kept in config.toml; lru unless named.")
@json_option
@pass_context
def init(  # noqa: PLR0913  # one for each option
    context: Context,
    directory: Path | None,
    size: str | None,
    hash_name: str | None,
    compression: str | None,
    chunking: str | None,
    eviction: str | None,
    as_json: bool,
) -> None:
    """Make a vault in DIR, or where TASKVAULT_HOME says.

    DIR is empty or does not exist.  Hash and chunking are fixed for the life of the vault.
    """
    from taskvault.cli.daemon_process import run_tvd

    home = directory.expanduser().absolute() if directory else context.home
    choices = {
        "--size": size,
        "--hash": hash_name,
        "--compression": compression,
        "--chunking": chunking,
        "--eviction": eviction,
    }
    named = [word for option, value in choices.items() if value is not None for word in (option, value)]
    run_tvd(["--home", str(home), "--init", *named])
    show(
        as_json,
        Made(home=str(home)),
        [
            f"The vault is {home}.",
            "Start it with `tv up`." if home == context.home else f"Start it with `TASKVAULT_HOME={home} tv up`.",
        ],
    )
