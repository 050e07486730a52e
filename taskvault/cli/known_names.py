"""Names that a running daemon knows, for completing a command line: quick, and silent about any trouble."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from taskvault.cli.context import Context

if TYPE_CHECKING:
    from taskvault.client import Client

PATIENCE_S = 0.5
"""Somebody has pressed a key and waits."""
MOST = 200
"""A shell does not want to show more."""


def known_names(context: Context, what: str, begun: str, *, scope: str) -> list[str]:
    """Return the names of a kind (`key`, `prefix`, `scope`, `name` of a snapshot, `run`) that begin like this."""
    with suppress(Exception), context.connect(timeout_s=PATIENCE_S) as client:  # a shell is no place to complain
        match what:
            case "key" | "prefix":
                return _keys(client, scope, begun)
            case "name":
                return _snapshots(client, begun)
            case "scope":
                return _scopes(client, begun)
            case "run":
                return _runs(client, begun)
    return []


def _keys(client: Client, scope: str, begun: str) -> list[str]:
    from taskvault.protocol.messages import GetEntry, ListEntries

    found = []
    if begun:
        exact = client.call(GetEntry(scope, begun), timeout_s=PATIENCE_S).entry
        found = [] if exact is None or exact.kind != "saved" else [exact]
    request = ListEntries(scope, after=(scope, begun) if begun else None, limit=MOST)
    found += client.call(request, timeout_s=PATIENCE_S).entries
    return [entry.key for entry in found if entry.key.startswith(begun) and entry.kind == "saved"]


def _scopes(client: Client, begun: str) -> list[str]:
    from taskvault.protocol.messages import ListEntries

    scopes: dict[str, None] = {}
    after: tuple[str, str] | None = None
    while len(scopes) < MOST:
        page = client.call(ListEntries(after=after, limit=1), timeout_s=PATIENCE_S).entries
        if not page:
            break
        scopes[page[0].scope] = None
        after = (page[0].scope, _LAST_KEY)
    return [scope for scope in scopes if scope.startswith(begun)]


def _snapshots(client: Client, begun: str) -> list[str]:
    mount = client.welcome.mount
    names = [] if mount is None else sorted(os.listdir(os.path.join(mount, "snapshots")))
    return [name for name in names if name.startswith(begun)][:MOST]


def _runs(client: Client, begun: str) -> list[str]:
    from taskvault.protocol.messages import FindRuns

    runs = client.call(FindRuns(limit=MOST, brief=True), timeout_s=PATIENCE_S).runs
    return [record.run for record in runs if record.run.startswith(begun)]


_LAST_KEY = "\U0010ffff"
"""Sorts after every key that people choose: one look-up for each scope."""
