"""`tv cache`: saved sets of paths."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskvault.cli.answers import CacheEntry, CacheHit, KeysPinned, KeysRemoved
from taskvault.cli.context import Context, Name, json_option, notes, pass_context, scope_option
from taskvault.cli.duration import Duration
from taskvault.cli.errors import NoSuch
from taskvault.cli.output import moment, seconds, show, size, table

if TYPE_CHECKING:
    from taskvault.protocol.messages import Entry


@click.group(
    epilog=notes(
        "tv cache save deps-$(tv hash package-lock.json) node_modules\n"
        "tv cache get deps-$(tv hash package-lock.json) --fallback deps-"
    )
)
def cache() -> None:
    """Save paths under a key, get them back."""


@cache.command(
    epilog=notes(
        "tv cache save deps-1 node_modules package-lock.json --ttl 7d",
        "0 saved, 3 no daemon, 4 the key exists or cannot be a key, 5 it could not be read or stored.",
    )
)
@click.argument("key", type=Name("key"))
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@scope_option
@click.option("--replace", is_flag=True, help="Put this in the place of what the key finds now.")
@click.option("--ttl", "ttl_s", type=Duration(), metavar="TIME", help="Forget it after so long: 30s, 15m, 12h, 7d, 2w.")
@click.option("--pin", "pinned", is_flag=True, help="Never evict it; --ttl ends its life all the same.")
@json_option
@pass_context
def save(  # noqa: PLR0913  # one for each option
    context: Context,
    key: str,
    paths: tuple[str, ...],
    scope: str,
    replace: bool,
    ttl_s: float | None,
    pinned: bool,
    as_json: bool,
) -> None:
    """Save paths under KEY: all of it, or nothing.

    Each path is kept relative to the working directory; one outside is kept under its last name.
    """
    from taskvault.cli.progress import waiting
    from taskvault.saved_paths import Keeping, save_under

    began_s = time.monotonic()
    with context.connect() as client, waiting("saving"):
        keeping = Keeping(replace=replace, ttl_s=ttl_s, pinned=pinned)
        entry = save_under(client, key, Path(os.getcwd()), paths, scope=scope, keeping=keeping)
    assert entry.snapshot is not None
    took = seconds(time.monotonic() - began_s)
    summary = f"Saved {entry.snapshot.files} files, {size(entry.snapshot.size)}, under {key!r} in {took}."
    show(as_json, _shown(entry), summary)


@cache.command(
    epilog=notes(
        "tv cache get deps-1 --fallback deps-",
        "0 a hit, 1 a miss, 3 no daemon, 4 something is in the way, 5 it could not be written.",
    )
)
@click.argument("key", type=Name("key"))
@click.option(
    "--to", "target", type=click.Path(path_type=Path), default=".", metavar="DIR", help="Where to; here unless named."
)
@scope_option
@click.option(
    "--fallback",
    "prefixes",
    multiple=True,
    type=Name("prefix"),
    metavar="PREFIX",
    help="Take the newest key that begins so.",
)
@json_option
@pass_context
def get(context: Context, key: str, target: Path, scope: str, prefixes: tuple[str, ...], as_json: bool) -> None:
    """Get what was saved under KEY: attached under the mount, at once and whatever its size; copied elsewhere."""
    from taskvault.cli.progress import waiting
    from taskvault.saved_paths import find, give_back, near_keys

    began_s = time.monotonic()
    with context.connect() as client:
        entry = find(client, key, scope=scope, prefixes=prefixes)
        if entry is None:
            near = near_keys(client, key, scope=scope)
            raise NoSuch(
                f"Miss: scope {scope!r} has no key {key!r}" + (f"; near ones are {', '.join(near)}." if near else ".")
            )
        with waiting("copying"):
            attached = give_back(client, entry, target.expanduser())
    took = seconds(time.monotonic() - began_s)
    value = CacheHit(**_fields(entry), hit=entry.key == key, attached=attached, to=str(target))
    assert entry.snapshot is not None
    what = f"{entry.snapshot.files} files, {size(entry.snapshot.size)}"
    show(as_json, value, f"{'Attached' if attached else 'Copied'} {what}, from {entry.key!r} in {took}.")


@cache.command("ls", epilog=notes("tv cache ls --scope main", "0, or 3 if no daemon answers."))
@click.option("--scope", type=Name("scope"), help="Only this namespace.")
@json_option
@pass_context
def list_entries(context: Context, scope: str | None, as_json: bool) -> None:
    """List the keys there are."""
    from taskvault.saved_paths import all_entries

    with context.connect() as client:
        every = all_entries(client, scope, damaged=lambda sentence: click.echo(f"tv: {sentence}", err=True))
        found = [entry for entry in every if entry.kind == "saved"]
    rows = [
        (
            entry.scope,
            entry.key,
            str(entry.snapshot.files),
            size(entry.snapshot.size),
            moment(entry.created_ns),
            str(entry.uses),
            "pinned" if entry.pinned else "",
            moment(entry.expires_ns) if entry.expires_ns else "",
        )
        for entry in found
        if entry.snapshot is not None
    ]
    lines = list(table(rows, ("scope", "key", "files", "size", "saved", "uses", "pin", "expires"))) or ["No keys yet."]
    show(as_json, [_shown(entry) for entry in found], lines)


@cache.command("show", epilog=notes("tv cache show deps-1", "0, 1 if there is no such key, 3 if no daemon answers."))
@click.argument("key", type=Name("key"))
@scope_option
@json_option
@pass_context
def show_entry(context: Context, key: str, scope: str, as_json: bool) -> None:
    """Show what a key finds."""
    from taskvault.saved_paths import find

    with context.connect() as client:
        entry = find(client, key, scope=scope, count_use=False)
    if entry is None:
        raise NoSuch(f"Scope {scope!r} has no key {key!r}; `tv cache ls` lists those there are.")
    value = _shown(entry)
    show(as_json, value, [f"{name.ljust(10)}  {item}" for name, item in _fields(entry).items()])


@cache.command(
    "rm",
    epilog=notes(
        "tv cache rm deps-1", "0, 1 if there is no such key (those before it are forgotten), 3 if no daemon answers."
    ),
)
@click.argument("keys", nargs=-1, type=Name("key"), required=True, metavar="KEY...")
@scope_option
@json_option
@pass_context
def remove(context: Context, keys: tuple[str, ...], scope: str, as_json: bool) -> None:
    """Forget keys; content that nothing else needs is swept later."""
    from taskvault.protocol.messages import RemoveEntry

    with context.connect() as client:
        for key in keys:
            client.call(RemoveEntry(scope, key))
    show(as_json, KeysRemoved(scope=scope, removed=list(keys)), f"Forgot {', '.join(keys)}.")


@cache.command(epilog=notes("tv cache pin deps-1", "0, 1 if there is no such key, 3 if no daemon answers."))
@click.argument("keys", nargs=-1, type=Name("key"), required=True, metavar="KEY...")
@scope_option
@json_option
@pass_context
def pin(context: Context, keys: tuple[str, ...], scope: str, as_json: bool) -> None:
    """Never evict keys, however much room is needed; a time to live ends all the same."""
    _set_pins(context, keys, scope, pinned=True, as_json=as_json)


@cache.command(epilog=notes("tv cache unpin deps-1", "0, 1 if there is no such key, 3 if no daemon answers."))
@click.argument("keys", nargs=-1, type=Name("key"), required=True, metavar="KEY...")
@scope_option
@json_option
@pass_context
def unpin(context: Context, keys: tuple[str, ...], scope: str, as_json: bool) -> None:
    """Let keys be evicted again when room is needed."""
    _set_pins(context, keys, scope, pinned=False, as_json=as_json)


def _set_pins(context: Context, keys: tuple[str, ...], scope: str, *, pinned: bool, as_json: bool) -> None:
    from taskvault.protocol.messages import SetPin

    lines = [f"{'Pinned' if pinned else 'Unpinned'} {', '.join(keys)}."]
    with context.connect() as client:
        for key in keys:
            entry = client.call(SetPin(scope, key, pinned)).entry
            if pinned and entry is not None and entry.expires_ns:
                lines.append(
                    f"{key} expires at {moment(entry.expires_ns)} all the same; save it without --ttl to keep it."
                )
    show(as_json, KeysPinned(scope=scope, keys=list(keys), pinned=pinned), lines)


def _shown(entry: Entry) -> CacheEntry:
    return CacheEntry(**_fields(entry))


def _fields(entry: Entry) -> dict[str, Any]:
    snapshot = entry.snapshot
    return {
        "scope": entry.scope,
        "key": entry.key,
        "kind": entry.kind,
        "files": snapshot.files if snapshot else 0,
        "bytes": snapshot.size if snapshot else 0,
        "tree": snapshot.tree if snapshot else None,
        "created": moment(entry.created_ns),
        "used": moment(entry.used_ns),
        "uses": entry.uses,
        "pinned": entry.pinned,
        "expires": moment(entry.expires_ns) if entry.expires_ns else None,
    }
