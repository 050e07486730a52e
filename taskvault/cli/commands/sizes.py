"""`tv du` and `tv show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from taskvault.cli.answers import PathSize, PathState, VaultSize
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.errors import Refusal
from taskvault.cli.output import show, size, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskvault.client import Client

PATH = click.Path(path_type=Path)
MEASURING_TIMEOUT_S = 3600.0
"""The daemon measures in slices, so as not to be in anybody's way."""


@click.command(
    epilog=notes(
        "tv du ~/.taskvault/mnt/work/*\ntv du", "0, 3 no daemon, 4 a path is not under the mount, 5 it cannot be read."
    )
)
@click.argument("paths", nargs=-1, type=PATH, metavar="PATH...")
@json_option
@pass_context
def du(context: Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """What PATHs under the mount take: their length, what is stored of it, and what removing them would give back.

    Equal content is stored once, so the stored sizes of two paths may overlap; the exclusive size is what nothing
    else needs.  Without PATH: what the vault takes of its disk.
    """
    with context.connect() as client:
        if not paths:
            whole = _whole(client)
            show(as_json, whole, _whole_lines(whole))
            return
        insides = [_inside(client, path) for path in paths]
        measured = [_measured(client, path, inside) for path, inside in zip(paths, insides, strict=True)]
    rows = [
        (str(each.files), size(each.logical_bytes), size(each.stored_bytes), size(each.exclusive_bytes),
         size(each.staged_bytes), each.path)
        for each in measured
    ]  # fmt: skip
    show(as_json, measured, table(rows, ("files", "length", "stored", "exclusive", "staged", "path")))


@click.command(
    "show",
    epilog=notes("tv show ~/.taskvault/mnt/work/build/app.o", "0, 3 no daemon, 4 it is not under the mount."),
)
@click.argument("path", type=PATH)
@json_option
@pass_context
def show_path(context: Context, path: Path, as_json: bool) -> None:
    """Everything about PATH under the mount: its state, digest, chunks, sharing, compression, and what keeps it."""
    from taskvault.cli.progress import waiting
    from taskvault.protocol.messages import DescribePath

    with context.connect() as client:
        request = DescribePath(_inside(client, path))
        with waiting("looking"):
            described = client.call(request, timeout_s=MEASURING_TIMEOUT_S)
    fields = {name: getattr(described, name) for name in described.__struct_fields__}
    state = msgspec.convert({"path": str(path), **fields}, PathState)
    show(as_json, state, _state_lines(state))


def _inside(client: Client, path: Path) -> str:
    """Return the path below the mount, as messages write it."""
    import os

    from taskvault.mounted import MountedTree, NotUnderMount

    tree = MountedTree.of(client)
    if tree is None or not tree.holds(path):
        raise Refusal(str(NotUnderMount(path, tree.mount if tree else None)))
    os.lstat(path)
    return tree.relative(path)


def _measured(client: Client, path: Path, inside: str) -> PathSize:
    from taskvault.cli.progress import waiting
    from taskvault.protocol.messages import MeasurePath

    with waiting(f"measuring {path}"):
        found = client.call(MeasurePath(inside), timeout_s=MEASURING_TIMEOUT_S)
    return PathSize(path=str(path), **{name: getattr(found, name) for name in found.__struct_fields__})


def _whole(client: Client) -> VaultSize:
    from taskvault.protocol.messages import GetStatistics

    figures = {name: int(value) for name, value in client.call(GetStatistics()).figures.items()}
    return _vault_size(figures)


def _vault_size(figures: Mapping[str, int]) -> VaultSize:
    packs, staging, meta = (figures[f"used_{kind}_bytes"] for kind in ("packs", "staging", "meta"))
    return VaultSize(
        capacity_bytes=figures["capacity_bytes"],
        used_bytes=figures["used_bytes"],
        packs_bytes=packs,
        staging_bytes=staging,
        meta_bytes=meta,
        rest_bytes=max(0, figures["used_bytes"] - packs - staging - meta),
        live_bytes=figures["live_bytes"],
        dead_bytes=max(0, packs - figures["live_bytes"]),
        logical_bytes=figures["logical_bytes"],
    )


def _whole_lines(whole: VaultSize) -> Iterable[str]:
    rows = [
        ("packs", size(whole.packs_bytes), f"{size(whole.live_bytes)} live, {size(whole.dead_bytes)} dead"),
        ("staging", size(whole.staging_bytes), "written and not sealed yet"),
        ("meta", size(whole.meta_bytes), "the catalog"),
        ("rest", size(whole.rest_bytes), "directories, the log"),
        ("used", size(whole.used_bytes), f"of {size(whole.capacity_bytes)}"),
        ("entries", size(whole.logical_bytes), "the length of all files in all entries"),
    ]
    width = max(len(amount) for _, amount, _ in rows)
    return [f"{name.ljust(8)} {amount.rjust(width)}  {note}" for name, amount, note in rows]


def _state_lines(state: PathState) -> Iterable[str]:
    marks = [
        word for word, holds in (("evictable", state.evictable), ("open for writing", state.open_for_writing)) if holds
    ]
    yield f"{state.path}: {', '.join([f'{state.state} {state.kind}', *marks])}"
    yield f"inode    {state.ino}"
    yield f"digest   {state.digest or 'none yet'}"
    yield f"length   {size(state.logical_bytes)}"
    yield f"stored   {size(state.stored_bytes)} in {state.chunks} chunks, {state.shared_chunks} of them shared"
    codecs = ", ".join(f"{count} {name}" for name, count in sorted(state.codecs.items()))
    yield f"codecs   {codecs or 'none'}"
    yield from (f"kept by  {keeper}" for keeper in state.kept_by)
