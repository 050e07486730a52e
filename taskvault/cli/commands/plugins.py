"""`tv plugins`."""

from __future__ import annotations

import click

from taskvault.cli.answers import Plugin
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import show, table

_ALONE = "no daemon answers, so nobody knows what the vault's data needs"


@click.command(
    epilog=notes("tv plugins", "0; 1 if a plugin that the vault's data needs does not work; without a daemon 0.")
)
@json_option
@pass_context
def plugins(context: Context, as_json: bool) -> int:
    """Every installed plugin: where it comes from, whether it works, and whether the vault's data needs it.

    Each one is loaded and tried.  It is `tv`'s environment that is looked at; the daemon's is the same unless two are
    installed.
    """
    from tvfs.plugin_api import PluginRegistry
    from tvfs.plugin_api.installed import survey

    needed = _needed(context)
    found = []
    for plugin in survey(PluginRegistry()):
        why = None if needed is None else needed.get(plugin.kind, {}).get(plugin.name, "")
        origin = plugin.origins[0]
        found.append(
            Plugin(
                kind=plugin.kind,
                name=plugin.name,
                distribution=origin.distribution,
                version=origin.version,
                state=plugin.state,
                reason=plugin.reason,
                needed=None if why is None else bool(why),
                needed_because=why or "",
            )
        )
    show(as_json, found, _lines(found, known=needed is not None))
    return ExitCode.NO if any(plugin.needed and plugin.state != "ok" for plugin in found) else ExitCode.OK


def _needed(context: Context) -> dict[str, dict[str, str]] | None:
    """Return why plugins are needed, by kind and name; None if no daemon answers."""
    from taskvault.errors import DaemonUnreachable, DaemonWedged
    from taskvault.protocol.messages import GetPluginUse

    try:
        with context.connect() as client:
            return client.call(GetPluginUse()).needed
    except (DaemonUnreachable, DaemonWedged):
        return None


def _lines(found: list[Plugin], *, known: bool) -> list[str]:
    rows = [
        (
            plugin.kind,
            plugin.name,
            f"{plugin.distribution or '?'} {plugin.version or ''}".strip(),
            plugin.state,
            plugin.needed_because or ("?" if plugin.needed is None else "no"),
        )
        for plugin in found
    ]
    lines = list(table(rows, ("kind", "name", "distribution", "state", "needed")))
    lines += ["", *(f"{plugin.reason}" for plugin in found if plugin.reason)] if any(p.reason for p in found) else []
    return lines if known else [*lines, "", f"Not known what is needed: {_ALONE}; start it with `tv up`."]
