"""`tv snapshot`, `tv attach`, `tv rm` and `tv hash`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from taskvault.cli.context import Context, Name, json_option, notes, pass_context
from taskvault.cli.errors import Refusal
from taskvault.cli.output import show, size

PATH = click.Path(path_type=Path)


@click.command(
    epilog=notes(
        "tv snapshot build before-refactoring",
        "0, 3 no daemon, 4 the name is taken or a file is being written, 5 it could not be read.",
    )
)
@click.argument("path", type=PATH)
@click.argument("name", required=False, type=Name("name"))
@click.option("--replace", is_flag=True, help="Give the name to this snapshot even if another has it.")
@json_option
@pass_context
def snapshot(context: Context, path: Path, name: str | None, replace: bool, as_json: bool) -> None:
    """Keep the directory PATH as it is now; prints the digest of its tree.

    With NAME it is kept until the name is given to another, and shown as MOUNT/snapshots/NAME.  Without, it
    can be attached by its digest as long as something else keeps its content.
    """
    from taskvault.cli.progress import waiting
    from taskvault.protocol.messages import NameSnapshot
    from taskvault.snapshots import take_snapshot

    if not path.is_dir():
        raise Refusal(f"{str(path)!r} is not a directory; save files with `tv cache save`.")
    with context.connect() as client:
        with waiting("reading"):
            taken = take_snapshot(client, Path(os.path.realpath(path)), ["."])
        if name is not None:
            client.call(NameSnapshot(name, taken, replace=replace))
    value = {"tree": taken.tree, "name": name, "files": taken.files, "bytes": taken.size}
    show(as_json, value, [taken.tree, f"{taken.files} files, {size(taken.size)}" + (f", named {name}" if name else "")])


@click.command(
    epilog=notes(
        "tv attach before-refactoring ~/.taskvault/mnt/work/old-build",
        "0, 1 no such snapshot, 3 no daemon, 4 PATH exists, 5 it could not be written.",
    )
)
@click.argument("snapshot", metavar="NAME|DIGEST", type=Name("name"))
@click.argument("path", type=PATH)
@json_option
@pass_context
def attach(context: Context, snapshot: str, path: Path, as_json: bool) -> None:
    """Give PATH, which does not exist yet, the content of a snapshot: at once under the mount, copied elsewhere."""
    from taskvault.mounted import MountedTree, PathInTheWay
    from taskvault.protocol.messages import FindSnapshot
    from taskvault.snapshot_reference import dereference

    if os.path.lexists(path):
        raise Refusal(str(PathInTheWay(path, "exists already")))
    with context.connect() as client:
        found = client.call(FindSnapshot(snapshot)).snapshot
        tree = MountedTree.of(client)
        attached = tree is not None and tree.holds(path)
        if tree is not None and attached:
            tree.attach(found, path)
        else:
            from taskvault.cli.progress import waiting
            from taskvault.content_source import content_source
            from tvfs.ingest.materialise import materialise

            with waiting("copying"), content_source(client) as source:
                materialise(source, dereference(found), os.fsencode(path))
    value = {"tree": found.tree, "path": str(path), "attached": attached}
    show(as_json, value, f"{'Attached' if attached else 'Copied'} {found.files} files, {size(found.size)}.")


@click.command(
    epilog=notes(
        "tv rm ~/.taskvault/mnt/work/old-build",
        "0 removed, 3 no daemon, 4 a path is not under the mount (nothing is removed), 5 not possible.",
    )
)
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATH...")
@json_option
@pass_context
def rm(context: Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Remove PATHs under the mount, at once and whatever their size; the space is freed in the background."""
    from taskvault.mounted import MountedTree, NotUnderMount

    with context.connect() as client:
        tree = MountedTree.of(client)
        for path in paths:
            if tree is None or not tree.holds(path) or os.path.realpath(path) == str(tree.mount):
                raise Refusal(str(NotUnderMount(path, tree.mount if tree else None)))
            os.lstat(path)
        assert tree is not None
        for path in paths:
            tree.remove(path)
    show(as_json, {"removed": [str(path) for path in paths]}, [])


@click.command(
    "hash", epilog=notes("tv cache get deps-$(tv hash package-lock.json)", "0, or 5 if a path cannot be read.")
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--hash", "hash_name", default="blake3", show_default=True, metavar="NAME", help="Hash plugin.")
@json_option
def hash_paths(paths: tuple[str, ...], hash_name: str, as_json: bool) -> None:
    """The digest of each PATH: of a file's content, or of a directory's tree.  Needs no daemon.

    A directory's digest is that of its canonical tree: names, content, executable bits and symlinks; no times
    and no owners.  It is what `tv snapshot` prints.
    """
    from taskvault.hashing import digest_of_path

    digests = {path: str(digest_of_path(Path(path), hash_name)) for path in paths}
    lines = [digest if len(paths) == 1 else f"{digest}  {path}" for path, digest in digests.items()]
    show(as_json, digests, lines)
