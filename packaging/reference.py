"""Write what docs/reference says of the configuration, the command line, metrics, plugin contracts and schemas.

Run by `make reference`.  The pages are committed; tests/packaging/test_generated.py fails when one is not what would
be written now.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from command_pages import Page, main_page, pages
from generated import bring_up_to_date
from schemas import described, file_name, schemas
from source_notes import field_notes, sentence

import tvfs.plugin_api as plugin_api
from taskvault.cli.answers import ANSWERS
from tvd.config_file import ENVIRONMENT_PREFIX, SECTIONS, types_of
from tvd.metrics import METRICS, Source

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
MADE = "<!-- Made by `make reference`; do not edit. -->\n\n"


def main() -> int:
    """Write the pages, or with --check say which are not up to date."""
    check = "--check" in sys.argv[1:]
    wanted = {
        "configuration.md": configuration(),
        "command-line.md": command_line(),
        "metrics.md": metrics(),
        "plugin-contracts.md": plugin_contracts(),
        "schemas.md": schema_page(),
    }
    wanted = {name: MADE + text for name, text in wanted.items()}
    status = 0
    for name, text in wanted.items():
        status |= bring_up_to_date(REFERENCE, {name: text}, "make reference", check=check, suffix=name)
    return status | bring_up_to_date(REFERENCE / "schemas", schemas(), "make reference", check=check)


def configuration() -> str:
    """Return the page of every setting."""
    parts = [
        "# Configuration\n\n"
        "`HOME/config.toml`; `tv config show` says what is set and by whom, `tv config check` what is wrong. A variable"
        " of the environment wins over the file, a command line over both. Sizes are bytes, or text like `50G`."
    ]
    for section, kind in SECTIONS.items():
        parts.append(f"\n## [{section}]\n\n{sentence(kind)}\n")
        parts.append("| key | type | default | allowed | environment | meaning |\n|---|---|---|---|---|---|")
        notes, types = field_notes(kind), types_of(section)
        for field in dataclasses.fields(kind):
            variable = f"{ENVIRONMENT_PREFIX}{section}_{field.name}".upper()
            default = getattr(kind(), field.name)
            cells = [
                f"`{field.name}`", _type(types[field.name]), "not set" if default is None else f"`{_toml(default)}`",
                _allowed(field.metadata), f"`{variable}`", notes[field.name],
            ]  # fmt: skip
            parts.append(_row(cells))
    return "\n".join(parts) + "\n"


def command_line() -> str:
    """Return the page of every command."""
    listed = list(pages())
    parts = [
        "# Command line\n\n`taskvault` is another name of `tv`. What `--json` prints is in [schemas.md](schemas.md),"
        " exit statuses in [exit-codes.md](exit-codes.md).\n"
    ]
    parts += [f"* [`{page.command}`](#{page.name}): {page.summary}" for page in listed]
    return "\n".join([*parts, *map(_command, [main_page(), *listed])])


def _command(page: Page) -> str:
    lines = [f"\n## {page.command}\n", f"    {page.usage}\n"]
    lines += [f"{_escaped(paragraph)}\n" for paragraph in page.paragraphs]
    lines += ["| option | meaning |\n|---|---|", *(_row([f"`{name}`", text]) for name, text in page.options), ""]
    lines += [f"    {example}" for example in page.example]
    return "\n".join(lines) + (f"\n\nExit status: {_escaped(page.exit_status)}\n" if page.exit_status else "\n")


def metrics() -> str:
    """Return the page of metrics."""
    lines = [
        "# Metrics\n\nNames that are reserved for the exporter; each is what `tv stats` or `tv top` shows today.\n",
        "| name | type | unit | labels | made of | meaning |\n|---|---|---|---|---|---|",
    ]
    shown = {Source.STATISTICS: "`tv stats`: ", Source.ACTIVITY: "`tv top`: ", Source.OPERATION: "`tv top`, each: "}
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        made_of = f"{shown[metric.source]}`{metric.field}`"
        lines.append(_row([f"`{metric.name}`", metric.kind, metric.unit, labels, made_of, metric.meaning]))
    return "\n".join(lines) + "\n"


def schema_page() -> str:
    """Return the page that lists the schemas."""
    lines = [
        "# JSON schemas\n\nWhat each command prints with `--json`. A field may be added, none is renamed; see"
        " [json.md](json.md).\n",
        "| command | value | schema |\n|---|---|---|",
    ]
    for command, answer in ANSWERS.items():
        name = file_name(command)
        lines.append(_row([f"`tv {command}`", described(answer), f"[{name}](schemas/{name})"]))
    return "\n".join(lines) + "\n"


def plugin_contracts() -> str:
    """Return the page of the contracts that plugins implement."""
    parts = [f"# Plugin contracts\n\n{_escaped(sentence(plugin_api))}\n"]
    for name in sorted({getattr(plugin_api, public).__module__ for public in _public(plugin_api)}):
        module = sys.modules[name]
        if name != f"{plugin_api.__name__}.buffer":
            parts += _module(module)
    return "\n".join(parts)


def _module(module: ModuleType) -> Iterator[str]:
    yield f"\n## {module.__name__.rpartition('.')[2]}\n"
    yield f"{_escaped(sentence(module))}\n"
    for public in _public(plugin_api):
        value = getattr(plugin_api, public)
        if value.__module__ == module.__name__ and inspect.isclass(value):
            yield f"### {public}\n\n{_escaped(sentence(value))}\n"
            yield from _members(value)


def _members(kind: type) -> Iterator[str]:
    notes = field_notes(kind)
    for name, value in vars(kind).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(value, property):
            yield f"* `{name}: {_return(value.fget)}`: {_one_paragraph(value)}"
        elif inspect.isfunction(value):
            yield f"* `{name}{_signature(value)}`: {_one_paragraph(value)}"
        elif name in notes:
            yield f"* `{name}`: {_escaped(notes[name])}"
    yield ""


def _one_paragraph(value: object) -> str:
    return _escaped(sentence(value).replace("\n\n", " "))


def _public(module: ModuleType) -> list[str]:
    return [name for name in module.__all__ if hasattr(getattr(module, name), "__module__")]


def _return(function: typing.Any) -> str:
    return str(inspect.signature(function).return_annotation)


def _signature(function: typing.Any) -> str:
    return str(inspect.signature(function)).replace("'", "").replace("(self, ", "(").replace("(self)", "()")


def _type(kind: object) -> str:
    text = getattr(kind, "__name__", str(kind)) if inspect.isclass(kind) else str(kind)
    return text.replace("pathlib.", "").replace("NoneType", "None").replace(" | None", "").replace("Path", "path")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def _allowed(metadata: typing.Mapping[str, typing.Any]) -> str:
    if "allowed" in metadata:
        return ", ".join(f"`{word}`" for word in metadata["allowed"])
    return f"{metadata['least']} to {metadata['most']}" if "least" in metadata else ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(_escaped(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _escaped(text: str) -> str:
    """What is in angle brackets is no HTML."""
    return re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", text)


if __name__ == "__main__":
    sys.exit(main())
