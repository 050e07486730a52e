"""Give back what a stored run made, as if it had just been made: outputs, standard output and error, exit status."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError

from taskvault.client import Client
from taskvault.content_source import content_source
from taskvault.mounted import MountedTree, exchange
from taskvault.protocol.messages import Entry, SnapshotRef
from taskvault.run.coarse_clock import coarse_now_ns
from taskvault.run.execute import first_trouble, write_all
from taskvault.run.outputs import Output
from taskvault.run.result_format import DELETED_TYPE, KEPT_TYPE, KEYS_TYPE, MODES_TYPE, ORDER_TYPE, STAMPED_TYPE
from taskvault.run.staging import PARTIAL, REPLAY_PREFIX, remove, staging
from taskvault.snapshot_reference import dereference
from tvfs import failpoints
from tvfs.content import reapi
from tvfs.content.names import unescape
from tvfs.content.snapshot import Snapshot
from tvfs.digest import HASH_BYTES, Digest
from tvfs.errors import TaskVaultError
from tvfs.ingest.materialise import SubpathMissing, TargetUnwritable, materialise
from tvfs.ingest.one_file import write_one
from tvfs.ingest.snapshot_source import SnapshotSource

_Kind = TypeVar("_Kind")

Sources = Callable[[], AbstractContextManager[SnapshotSource]]
"""Opens what the content of a vault is read from."""

USUAL_UMASK = 0o022
"""What is attached or copied has the permissions that this umask leaves."""


MOST_PLAIN = 8
"""Files that are written one by one; of more, a directory is made first."""


class ResultUnusable(TaskVaultError):
    """A stored result cannot be given back here; the message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The stored result cannot be used: {reason}.")


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A run's result, read."""

    snapshot: SnapshotRef
    outputs: tuple[Output, ...]
    exit_code: int
    streams: tuple[bytes | Digest, bytes | Digest]
    """Standard output and error, or where they are."""
    order: tuple[tuple[int, int], ...]
    """Runs of bytes as they were written: (1 for stdout or 2 for stderr, length); empty if only one was written."""
    deleted: tuple[str, ...] = ()
    """What the run removed, relative to the root."""
    modes: tuple[tuple[str, int], ...] = ()
    """Permissions of outputs that the umask does not explain."""
    kept: tuple[str, ...] = ()
    """Outputs that get the attributes of the file that is there, if one is."""
    stamped: tuple[str, ...] = ()
    """Outputs that say when the others were made."""
    keys: tuple[str, ...] = ()
    """All that find this result, if there is more than one."""


def read_result(entry: Entry, function: str) -> StoredResult:
    """Return what an entry says; raise `ResultUnusable`."""
    if entry.kind != "run" or entry.snapshot is None:
        raise ResultUnusable(f"the entry is a {entry.kind} one")
    result = reapi.ActionResult()
    try:
        result.ParseFromString(entry.result)
        outputs = [Output(_path(o.path), True) for o in result.output_directories]
        outputs += [Output(_path(o.path), False) for o in (*result.output_files, *result.output_symlinks)]
        extra = {each.type_url: each.value for each in result.execution_metadata.auxiliary_metadata}
        order = tuple(_decoded(extra, ORDER_TYPE, list[tuple[int, int]]) or ())
        deleted = tuple(_path(path) for path in _decoded(extra, DELETED_TYPE, list[str]) or ())
        modes = _decoded(extra, MODES_TYPE, dict[str, int]) or {}
        permissions = tuple((_path(path), mode & 0o777) for path, mode in modes.items())
        kept = tuple(_path(path) for path in _decoded(extra, KEPT_TYPE, list[str]) or ())
        stamped = tuple(_path(path) for path in _decoded(extra, STAMPED_TYPE, list[str]) or ())
        keys = tuple(_decoded(extra, KEYS_TYPE, list[str]) or ())
        streams = (
            _stream(result.stdout_raw, result.stdout_digest, function),
            _stream(result.stderr_raw, result.stderr_digest, function),
        )
    except (ValueError, TaskVaultError, msgspec.MsgspecError, DecodeError) as exc:
        raise ResultUnusable(f"it cannot be read ({exc})") from exc
    return StoredResult(
        entry.snapshot, tuple(sorted(outputs)), result.exit_code, streams, order, deleted, permissions, kept, stamped,
        keys,
    )  # fmt: skip


def replay(client: Client, result: StoredResult, root: Path, *, umask: int) -> OSError | None:
    """Put all outputs in place, then write what was written; raise with nothing changed.

    Return why what was written could not be passed on, or None; that a reader has gone is no trouble.
    """
    unwritten: dict[int, OSError] = {}
    for stream, part in restore(client, result, root, umask=umask, sources=lambda: content_source(client)):
        if stream in unwritten:
            continue
        try:
            write_all(stream, part)
        except OSError as exc:
            unwritten[stream] = exc
    return first_trouble(unwritten)


def restore(
    client: Client, result: StoredResult, root: Path, *, umask: int, sources: Sources
) -> Iterable[tuple[int, bytes]]:
    """Put all outputs in place, and return what is to be written to which stream; raise with nothing changed.

    Under the mount outputs are attached, elsewhere they are copied.  All of them get one time, now: nothing that was
    made is older than its inputs or than anything else that was made.  A directory is replaced whole, in one step.
    """
    streams = [fetched(sources, stream) for stream in result.streams]
    if _is_plain(client, result, root, sources):
        _restore_files(result, root, umask, sources)
    elif result.outputs or result.deleted:
        with _prepared(client, result.snapshot, root, sources) as place:
            if umask != USUAL_UMASK:
                _apply_umask(_below(place), umask)
            for path, mode in result.modes:
                os.chmod(place / path, mode)
            for path in result.stamped:
                _restamp(place, path, root)
            for path in result.kept:
                _keep_attributes(place / path, root / path)
            failpoints.reach("replay.prepared")
            with _all_or_nothing() as undo:
                # In the order of the run: what was in a directory, then the directory.
                for number, path in enumerate(result.deleted):
                    _remove(place / f"{REPLAY_PREFIX}{number}", root, path, undo)
                for output in result.outputs:
                    _publish(f"{place}/{output.path}", root, output, undo)
    return _in_order(streams, result.order)


def _is_plain(client: Client, result: StoredResult, root: Path, sources: Sources) -> bool:
    """Whether all outputs are a few files, to be copied: as of a compiler, which is called most often."""
    if result.deleted or result.stamped or any(each.is_directory for each in result.outputs):
        return False
    if not 0 < len(result.outputs) <= MOST_PLAIN:
        return False
    tree = MountedTree.of(client)
    if tree is not None and root.is_relative_to(tree.mount):
        return False
    with sources() as source:
        # Names of one file must be made together.
        return len(result.outputs) == 1 or not source.root(dereference(result.snapshot).index).hard_links


def _restore_files(result: StoredResult, root: Path, umask: int, sources: Sources) -> None:
    """Write each file into the root under a name of its own, then put all in place."""
    with staging(root) as prefix:
        places = {output.path: f"{prefix}-{number}" for number, output in enumerate(result.outputs)}
        snapshot, now_ns = dereference(result.snapshot), coarse_now_ns()
        try:
            with sources() as source:
                for path, place in places.items():
                    try:
                        _write(source, snapshot, b"outputs/" + os.fsencode(path), place, now_ns)
                    except OSError as exc:
                        raise TargetUnwritable(os.fsencode(root / path), exc) from exc
            if umask != USUAL_UMASK:
                _apply_umask(places.values(), umask)
            for path, mode in result.modes:
                os.chmod(places[path], mode)
            for path in result.kept:
                _keep_attributes(Path(places[path]), root / path)
            failpoints.reach("replay.prepared")
            with _all_or_nothing() as undo:
                for output in result.outputs:
                    _publish(places[output.path], root, output, undo)
        finally:
            for place in places.values():
                remove(place)


def _write(source: SnapshotSource, snapshot: Snapshot, inside: bytes, place: str, now_ns: int) -> None:
    """Write what is at a path in a snapshot to a name of our own."""
    entry = source.lookup(snapshot.index, inside)
    if entry is None:
        raise SubpathMissing(inside)
    if not write_one(source, entry, place, mtime_ns=now_ns):
        materialise(source, snapshot, os.fsencode(place), subpath=inside, temporary=PARTIAL)
        os.utime(place, ns=(now_ns, now_ns), follow_symlinks=False)


@contextmanager
def _prepared(client: Client, snapshot: SnapshotRef, root: Path, sources: Sources) -> Iterator[Path]:
    """Yield a directory with fresh outputs, on the file system of the root; what is left of it goes."""
    tree = MountedTree.of(client)
    if tree is not None and root.is_relative_to(tree.mount):
        with tree.attached(snapshot, "outputs") as place:
            yield place
        return
    with staging(root) as prefix:
        place = Path(prefix)
        try:
            with sources() as source:
                materialise(source, dereference(snapshot), os.fsencode(place), subpath=b"outputs", temporary=PARTIAL)
            _give_one_time(place)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _all_or_nothing() -> Iterator[list[Callable[[], None]]]:
    """Yield a list for what takes back each step; the steps are taken back, the last first, if the body fails."""
    undo: list[Callable[[], None]] = []
    try:
        yield undo
    except BaseException:
        for step in reversed(undo):
            with suppress(OSError):
                step()
        raise


def _publish(source: str, root: Path, output: Output, undo: list[Callable[[], None]]) -> None:
    target = f"{root}/{output.path}"
    directory = os.path.dirname(target)
    # The root itself was resolved.
    if "/" in output.path and not Path(os.path.realpath(directory)).is_relative_to(root):
        raise ResultUnusable(f"{output.path!r} would be written through a symbolic link, outside of the root")
    try:
        os.lstat(target)
    except FileNotFoundError:
        _make_parents(Path(directory), undo)
        os.rename(source, target)
        undo.append(partial(os.rename, target, source))
        return
    _swap(source, target)
    undo.append(partial(_swap, source, target))


def _restamp(place: Path, path: str, root: Path) -> None:
    from taskvault.run.stamps import restamp

    restamp(place, path, root)


def _keep_attributes(source: Path, target: Path) -> None:
    """Give what was made the attributes of what is there, as a command does that writes into it."""
    try:
        there = os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(there.st_mode):
        return
    if there.st_nlink > 1:
        raise ResultUnusable(f"{str(target)!r} has another name too, which would have another content")
    ours = os.lstat(source)
    if (there.st_uid, there.st_gid) != (ours.st_uid, ours.st_gid):
        os.chown(source, there.st_uid, there.st_gid)
    os.chmod(source, stat.S_IMODE(there.st_mode))


def _remove(aside: Path, root: Path, path: str, undo: list[Callable[[], None]]) -> None:
    target = root / path
    if not Path(os.path.realpath(target.parent)).is_relative_to(root):
        raise ResultUnusable(f"{path!r} would be removed through a symbolic link, outside of the root")
    if target.is_dir() and not target.is_symlink() and os.listdir(target):
        raise ResultUnusable(f"the directory {path!r} is not empty, and was when the run removed it")
    os.rename(target, aside)
    undo.append(partial(os.rename, aside, target))


def _make_parents(directory: Path, undo: list[Callable[[], None]]) -> None:
    missing: list[Path] = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        os.mkdir(each)
        undo.append(partial(os.rmdir, each))


def _swap(source: str, target: str) -> None:
    """Swap two names; what was at `target` stays at `source` until everything is in place."""
    try:
        exchange(source, target)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        # A file system that cannot swap in one step, such as NFS.
        aside = f"{source}.aside"
        os.rename(target, aside)
        os.rename(source, target)
        os.rename(aside, source)


def _give_one_time(place: Path) -> None:
    now_ns = coarse_now_ns()
    for path in _below(place):
        os.utime(path, ns=(now_ns, now_ns), follow_symlinks=False)


def _apply_umask(paths: Iterable[str | Path], umask: int) -> None:
    for path in paths:
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode):
            os.chmod(path, (0o777 if mode & 0o111 else 0o666) & ~umask)


def _below(place: Path) -> Iterator[Path]:
    for directory, directories, files in os.walk(place):
        yield from (Path(directory, name) for name in (*directories, *files))


def _path(written: str) -> str:
    path = os.fsdecode(unescape(written))
    if not path or path.startswith("/") or "\0" in path or any(name in ("", ".", "..") for name in path.split("/")):
        raise ResultUnusable(f"{path!r} is no path below the root")
    return path


def _stream(raw: bytes, digest: reapi.ReapiMessage, function: str) -> bytes | Digest:
    if len(raw) == digest.size_bytes:
        return raw
    hash_ = bytes.fromhex(digest.hash)
    if len(hash_) != HASH_BYTES or digest.size_bytes < 0:
        raise ResultUnusable(f"{digest.hash!r} of {digest.size_bytes} bytes is no digest")
    return Digest(function, hash_, digest.size_bytes)


def fetched(sources: Sources, stream: bytes | Digest) -> bytes:
    """Return what was written, which is in the result itself if it is short."""
    if isinstance(stream, bytes):
        return stream
    with sources() as source:
        return source.blob(stream)


def _decoded(extra: Mapping[str, bytes], type_url: str, kind: type[_Kind]) -> _Kind | None:
    return msgspec.msgpack.decode(extra[type_url], type=kind) if type_url in extra else None


def _in_order(streams: Sequence[bytes], order: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    at = [0, 0]
    for stream, length in order:
        if stream in (1, 2):
            yield stream, streams[stream - 1][at[stream - 1] : at[stream - 1] + length]
            at[stream - 1] += length
    for stream in (1, 2):
        yield stream, streams[stream - 1][at[stream - 1] :]
