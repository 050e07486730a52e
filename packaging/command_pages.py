"""The command line as values: what the manual pages and the reference are made from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import click

from taskvault.cli.application import COMMANDS, application, every_command


@dataclass(frozen=True, slots=True)
class Page:
    """One command."""

    command: str
    """As it is typed: `tv cache save`."""
    summary: str
    usage: str
    paragraphs: list[str]
    options: list[tuple[str, str]]
    """`--to DIR` and what it says."""
    example: list[str] = field(default_factory=list)
    exit_status: str = ""

    @property
    def name(self) -> str:
        """Of the manual page: `tv-cache-save`."""
        return self.command.replace(" ", "-")


def main_page() -> Page:
    """Return the page of `tv` itself."""
    return _page("tv", application, "identical work is never done twice")


def pages() -> Iterator[Page]:
    """Yield the page of every command."""
    for name, command in every_command():
        own = name in COMMANDS
        yield _page(f"tv {name}", command, COMMANDS[name].summary if own else command.get_short_help_str(200))


def _page(typed: str, command: click.Command, summary: str) -> Page:
    context = click.Context(command, info_name=typed, help_option_names=["-h", "--help"])
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    example, exit_status = _notes(command.epilog or "")
    return Page(
        command=typed,
        summary=summary.rstrip("."),
        usage=" ".join([typed, *command.collect_usage_pieces(context)]),
        paragraphs=[" ".join(part.split()) for part in re.split(r"\n\s*\n", command.help or "")],
        options=[(names, text) for names, text in records],
        example=example,
        exit_status=exit_status,
    )


def _notes(epilog: str) -> tuple[list[str], str]:
    """Take apart what `taskvault.cli.context.notes` put together."""
    shown, _, status = epilog.partition("\n\nExit status: ")
    lines = shown.removeprefix("\b\nExample:\n").splitlines()
    return [line.strip() for line in lines], " ".join(status.split())
