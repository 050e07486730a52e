"""`tv snapshot`, `tv attach`, `tv rm` and `tv hash`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from taskvault.cli.answers import Attached, Digests, PathsRemoved, SnapshotsRemoved, SnapshotTaken
from taskvault.cli.context import Context, Name, json_option, notes, pass_context
from taskvault.cli.errors import Refusal
from taskvault.cli.output import show, size

PATH = click.Path(path_type=Path)

INGRESS_TIMEOUT_S = 3600.0
"""A foreign tree is checked whole when it is first attached: 20 s for a million names."""


@click.command(
    epilog=notes(
        "tv snapshot build before-refactoring\ntv snapshot --rm before-refactoring",
        "0, 1 no such snapshot, 3 no daemon, 4 the name is taken or a file is being written, 5 it could not be read.",
    )
)
@click.argument("path", required=False, type=PATH)
@click.argument("name", required=False, type=Name("name"))
@click.option("--replace", is_flag=True, help="Give the name to this snapshot even if another has it.")
@click.option("--rm", "removed", metavar="NAME|DIGEST", type=Name("name"), help="Forget this snapshot instead.")
@json_option
@pass_context
def snapshot(
    context: Context, path: Path | None, name: str | None, replace: bool, removed: str | None, as_json: bool
) -> None:
    """Keep the directory PATH as it is now; prints the digest of its tree.

    With NAME it is kept until it is removed or the name is given to another, and shown as MOUNT/snapshots/NAME.
    Without, it can be attached by its digest for 7 days, or until room is needed.
    """
    from taskvault.cli.progress import waiting
    from taskvault.protocol.messages import NameSnapshot
    from taskvault.snapshots import take_snapshot

    if (path is None) == (removed is None):
        raise click.UsageError("Give a PATH to keep, or --rm with the snapshot to forget.")
    if removed is not None:
        _remove_snapshot(context, removed, as_json=as_json)
        return
    assert path is not None
    if not path.is_dir():
        raise Refusal(f"{str(path)!r} is not a directory; save files with `tv cache save`.")
    with context.connect() as client:
        with waiting("reading"):
            taken = take_snapshot(client, Path(os.path.realpath(path)), ["."])
        # Under its own digest it is kept for a time.
        client.call(NameSnapshot(taken.tree if name is None else name, taken, replace=replace))
    value = SnapshotTaken(tree=taken.tree, name=name, files=taken.files, bytes=taken.size)
    show(as_json, value, [taken.tree, f"{taken.files} files, {size(taken.size)}" + (f", named {name}" if name else "")])


def _remove_snapshot(context: Context, name: str, *, as_json: bool) -> None:
    from taskvault.protocol.messages import RemoveSnapshot

    with context.connect() as client:
        client.call(RemoveSnapshot(name))
    removed: SnapshotsRemoved = [name]
    show(as_json, removed, f"Forgot the snapshot {name}.")


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
        found = client.call(FindSnapshot(snapshot), timeout_s=INGRESS_TIMEOUT_S).snapshot
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
    value = Attached(tree=found.tree, path=str(path), attached=attached)
    show(as_json, value, f"{'Attached' if attached else 'Copied'} {found.files} files, {size(found.size)}.")


@click.command(
    epilog=notes(
        "tv rm ~/.taskvault/mnt/work/old-build",
        "0 removed, 3 no daemon, 4 a path is not under the mount or always there (nothing is removed), 5 not possible.",
    )
)
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATH...")
@json_option
@pass_context
def rm(context: Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Remove PATHs under the mount, at once and whatever their size; the space is freed in the background.

    In MOUNT/work they are files and directories.  MOUNT/keys/SCOPE/KEY, MOUNT/snapshots/NAME and MOUNT/runs/RUN
    are forgotten, as by `tv cache rm KEY` and `tv snapshot --rm NAME`.
    """
    from taskvault.mounted import MountedTree, NotUnderMount
    from taskvault.removal import removal_of

    with context.connect() as client:
        tree = MountedTree.of(client)
        for path in paths:
            if tree is None or not tree.holds(path) or os.path.realpath(path) == str(tree.mount):
                raise Refusal(str(NotUnderMount(path, tree.mount if tree else None)))
            os.lstat(path)
        assert tree is not None
        for remove in [removal_of(tree, path) for path in paths]:
            remove()
    show(as_json, PathsRemoved(removed=[str(path) for path in paths]), [])


@click.command(
    "hash", epilog=notes("tv cache get deps-$(tv hash package-lock.json)", "0, or 5 if a path cannot be read.")
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@click.option("--hash", "hash_name", default="blake3", show_default=True, metavar="NAME", help="Hash plugin.")
@json_option
def hash_paths(paths: tuple[str, ...], hash_name: str, as_json: bool) -> None:
    """The digest of each PATH: of a file's content, or of a directory's tree.  Needs no daemon.

    A directory's digest is that of its canonical tree: names, content, executable bits and symlinks; no times
    and no owners.  It is what `tv snapshot` prints.
    """
    from taskvault.hashing import digest_of_path

    digests: Digests = {path: str(digest_of_path(Path(path), hash_name)) for path in paths}
    lines = [digest if len(paths) == 1 else f"{digest}  {path}" for path, digest in digests.items()]
    show(as_json, digests, lines)
