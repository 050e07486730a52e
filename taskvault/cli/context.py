"""What every command is given: which vault, and a way to reach its owner."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import click.shell_completion

from taskvault.cli.errors import Refusal

if TYPE_CHECKING:
    from taskvault.client import Client


@dataclass(frozen=True, slots=True)
class Context:
    """One command line."""

    named: str
    """The vault as it was named."""

    @property
    def home(self) -> Path:
        """The vault, an absolute path; raise `Refusal` if there is no home directory that it could be in."""
        expanded = os.path.expanduser(self.named)
        if expanded.startswith("~"):
            raise Refusal(
                f"There is no home directory for {self.named!r}; name the vault with --home or TASKVAULT_HOME."
            )
        return Path(os.path.abspath(expanded))

    def connect(self, *, timeout_s: float = 5.0) -> Client:
        """Return a connection to the owner; raise `DaemonUnreachable` or `DaemonWedged`."""
        from taskvault.client import Client

        return Client.connect(self.home, timeout_s=timeout_s)


def named_vault(home: str | None) -> Context:
    """Return the vault that a command line means, given its --home."""
    return Context(home or os.environ.get("TASKVAULT_HOME") or "~/.taskvault")


class Name(click.ParamType[str]):
    """A key, scope or name: text, because messages and directories of the mount hold it as UTF-8."""

    name = "text"

    def __init__(self, what: str) -> None:
        """`what` is how the sentence calls it."""
        self._what = what

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; raise `Refusal` for bytes that are none."""
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refusal(f"The {self._what} {value!a} is not valid UTF-8; use text.") from None
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Offer what a running daemon knows of the kind; nothing, quickly, if there is none."""
        from taskvault.cli.known_names import known_names

        named = named_vault(ctx.find_root().params.get("home"))
        names = known_names(named, self._what, incomplete, scope=ctx.params.get("scope") or "main")
        return [click.shell_completion.CompletionItem(name) for name in names]


pass_context = click.make_pass_decorator(Context)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of text.")
scope_option = click.option(
    "--scope", type=Name("scope"), default="main", show_default=True, help="Namespace of the keys."
)


def notes(example: str, exit_status: str = "") -> str:
    """Return what stands below the options of a command's `--help`: an example, and what the exit status says."""
    lines = "".join(f"\n  {line.strip()}" for line in example.strip().splitlines())
    return f"\b\nExample:{lines}" + (f"\n\nExit status: {exit_status}" if exit_status else "")
