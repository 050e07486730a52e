"""`tv config`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import click
import msgspec

from taskvault.cli.answers import ConfigChecked, Setting
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import show, size


@click.group(epilog=notes("tv config show\ntv config check new-config.toml"))
def config() -> None:
    """Show or check the settings of the daemon."""


@config.command(
    "show", epilog=notes("tv config show --json", "0, or 5 if the daemon could not start with it (see `config check`).")
)
@json_option
@pass_context
def show_settings(context: Context, as_json: bool) -> None:
    """Every setting, its value, and where that comes from: the default, a line of the file, or the environment.

    It is what the daemon would start with now; `tv up` and `tvd` may say otherwise for one start.
    """
    from taskvault.cli.daemon_process import run_tvd

    told = json.loads(run_tvd(["--home", str(context.home), "--print-config"]))
    settings = msgspec.convert(told, list[Setting])
    show(as_json, settings, _listed(settings, made=(context.home / "format").exists()))


@config.command(
    "check", epilog=notes("tv config check\ntv config check new-config.toml", "0 nothing is wrong, 1 something is.")
)
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@json_option
@pass_context
def check(context: Context, file: Path | None, as_json: bool) -> int:
    """Everything that is wrong with FILE, each with its line and what is allowed.

    Without FILE: with the vault's own config.toml, and with the variables of the environment that name a setting.
    """
    from taskvault.cli.daemon_process import run_tvd

    named = [] if file is None else [str(file.expanduser().absolute())]
    told = json.loads(run_tvd(["--home", str(context.home), "--check-config", *named]))
    checked = msgspec.convert(told, ConfigChecked)
    if file is not None and not checked.exists:
        raise FileNotFoundError(2, "No such file or directory", str(file))
    if checked.errors:
        lines = [error.message for error in checked.errors]
    elif checked.exists:
        lines = [f"Nothing is wrong with {checked.file}."]
    else:
        lines = [f"There is no {checked.file}; everything has its default."]
    show(as_json, checked, lines)
    return ExitCode.NO if checked.errors else ExitCode.OK


def _listed(settings: list[Setting], *, made: bool) -> Iterable[str]:
    width = max(len(setting.key) for setting in settings)
    for section, members in groupby(settings, key=lambda setting: setting.section):
        fixed = " (counted when the vault was made, not any more)" if section == "vault" and made else ""
        yield f"[{section}]{fixed}"
        for setting in members:
            yield f"  {setting.key.ljust(width)}  {_value(setting)}  ({_source(setting)})"


def _value(setting: Setting) -> str:
    if setting.value is None:
        return "not set"
    if setting.key.endswith("_bytes") and isinstance(setting.value, int):
        return f"{setting.value} ({size(setting.value)})"
    return json.dumps(setting.value)


def _source(setting: Setting) -> str:
    if setting.variable is not None:
        return setting.variable
    return "default" if setting.file is None else f"{setting.file}:{setting.line}" if setting.line else setting.file
