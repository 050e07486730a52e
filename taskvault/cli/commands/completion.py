"""`tv completion`."""

from __future__ import annotations

from typing import Literal

import click
import click.shell_completion

from taskvault.cli.answers import Completion
from taskvault.cli.context import json_option, notes
from taskvault.cli.output import show

Shell = Literal["bash", "zsh", "fish"]

_ALSO_TASKVAULT = {
    "bash": "complete -o nosort -F _tv_completion taskvault\n",
    "zsh": "compdef _tv_completion taskvault\n",
    "fish": 'complete --no-files --command taskvault --arguments "(_tv_completion)"\n',
}


@click.command(
    epilog=notes('tv completion fish > ~/.config/fish/completions/tv.fish\neval "$(tv completion bash)"', "0."),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: Shell, as_json: bool) -> None:
    """Print a script that makes SHELL complete commands, options, paths, and the keys of a running daemon.

    Put the last line of the example into ~/.bashrc, or the same with zsh into ~/.zshrc.
    """
    from taskvault.cli.application import application

    made = click.shell_completion.get_completion_class(shell)
    assert made is not None, "click knows the three"
    script = made(application, {}, "tv", "_TV_COMPLETE").source().rstrip("\n") + "\n" + _ALSO_TASKVAULT[shell]
    show(as_json, Completion(shell=shell, script=script), script.rstrip("\n"))
