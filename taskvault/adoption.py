"""A directory that is there already, moved under the mount with a link left in its place; and moved back.

The switch is one exchange of two names, so that at every moment the path leads to all of the content.  What was there
before is removed only after what replaces it survives a power loss, was compared with it, and it had not changed since
it was read.  A journal beside the directory (`adoption_journal`) says how far it went: whoever comes next goes on, or
back, from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from taskvault.adoptable import (
    NotAdoptable,
    check_adoptable,
    difference,
    fingerprint,
    remove_tree,
    sync_directory,
    users,
    walk,
)
from taskvault.adoption_journal import Journal, journal_of, one_at_a_time
from taskvault.client import Client
from taskvault.mounted import MountedTree, NotUnderMount, exchange, resolved
from taskvault.protocol.messages import DescribePath, MarkEvictable, MeasurePath, SnapshotRef
from taskvault.snapshots import take_snapshot
from tvfs import failpoints

_ATTEMPTS = 3
"""How often a directory that changes while it is read is read again."""
_MEASURE_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was moved, and where it lies now, or lay."""

    directory: Path
    place: Path
    files: int
    bytes: int


def adopt(client: Client, directory: Path, *, evictable: bool = False) -> Adoption:
    """Move a directory under the mount and leave a link; raise `NotAdoptable` or what saving raises.

    One that was adopted already stays so.  With `evictable`, one that lies under the mount is marked where it is.
    """
    tree = _tree(client, directory)
    directory = resolved(directory)
    if tree.holds(directory):
        if not evictable:
            raise NotAdoptable(directory, "lies under the mount already")
        return _marked(tree, directory, True)
    with _turn(tree, directory) as journal:
        _settle(tree, journal)
        if directory.is_symlink() and Path(os.readlink(directory)) == journal.place and journal.place.is_dir():
            if evictable:
                _mark(tree, journal.place, True)
            return _measured(tree, directory, journal.place)
        return _adopt(tree, journal, evictable=evictable)


def release(client: Client, directory: Path) -> Adoption:
    """Move an adopted directory back to where it was; raise `NotAdoptable` or what copying raises.

    One that lies under the mount and is evictable is so no longer.
    """
    tree = _tree(client, directory)
    directory = resolved(directory)
    if tree.holds(directory):
        return _marked(tree, directory, False)
    with _turn(tree, directory) as journal:
        _settle(tree, journal)
        if not directory.is_symlink() or Path(os.readlink(directory)) != journal.place:
            raise NotAdoptable(directory, "is not a link that `tv adopt` left")
        if not journal.place.is_dir():
            raise NotAdoptable(directory, f"leads to {str(journal.place)!r}, and nothing is there any more")
        return _release(tree, journal)


def _adopt(tree: MountedTree, journal: Journal, *, evictable: bool) -> Adoption:
    directory, place = journal.directory, journal.place
    check_adoptable(tree, directory)
    if os.path.lexists(place):
        raise NotAdoptable(directory, f"was adopted before: look at what is in {str(place)!r}, then `tv rm` that")
    snapshot, before = _settled_snapshot(tree.client, directory, directory)
    with tree.attached(snapshot) as prepared:
        different = difference(directory, prepared)
        if different:
            raise NotAdoptable(directory, f"would not be the same under the mount: {different}")
        journal.write(fingerprint=before, evictable=evictable)
        failpoints.reach("adopt.after_journal")
        try:
            place.parent.mkdir(exist_ok=True)
            os.rename(prepared, place)
            _sync_mount(place)
            failpoints.reach("adopt.after_publish")
            os.symlink(place, journal.aside)
            _switch(journal)
            failpoints.reach("adopt.after_switch")
            _check_untouched(journal, journal.aside, before)
        except BaseException:
            _go_back(tree, journal)
            raise
    _finish(tree, journal)
    return Adoption(directory, place, snapshot.files, snapshot.size)


def _release(tree: MountedTree, journal: Journal) -> Adoption:
    directory, place = journal.directory, journal.place
    in_use = users(place, writing=False)
    if in_use:
        raise NotAdoptable(directory, f"is in use by {', '.join(in_use)}; stop that first")
    was_evictable = _is_evictable(tree, place)
    _mark(tree, place, False)
    try:
        snapshot, before = _settled_snapshot(tree.client, directory, place)
        journal.write(fingerprint=before, evictable=was_evictable, releasing=True)
        failpoints.reach("release.after_journal")
        _copy(tree.client, snapshot, journal.aside)
        os.sync()
        failpoints.reach("release.after_copy")
        _switch(journal)
        failpoints.reach("release.after_switch")
        _check_untouched(journal, place, before)
    except BaseException:
        _go_back(tree, journal)
        if was_evictable:
            _mark(tree, place, True)
        raise
    _finish(tree, journal)
    return Adoption(directory, place, snapshot.files, snapshot.size)


def _switch(journal: Journal) -> None:
    try:
        exchange(journal.aside, journal.directory)
    except OSError as exc:
        # Lower layers of overlay filesystems (EXDEV), and filesystems that do not know of it (EINVAL).
        reason = f"cannot change places with {str(journal.aside)!r} on its filesystem ({os.strerror(exc.errno or 0)})"
        raise NotAdoptable(journal.directory, reason) from exc
    sync_directory(journal.directory.parent)


def _check_untouched(journal: Journal, content: Path, before: bytes) -> None:
    """Refuse if what was copied has been written to, or may be: the switch is made, and can be taken back."""
    in_use = users(content, writing=True)
    if in_use:
        raise NotAdoptable(journal.directory, f"is being written to by {', '.join(in_use)}; stop that first")
    if fingerprint(content) != before:
        raise NotAdoptable(journal.directory, "was written to while it was copied; stop whoever writes and try again")


def _go_back(tree: MountedTree, journal: Journal) -> None:
    """Undo a switch that was made or not: what was copied is the directory again, and the copy goes."""
    if not journal.is_written():
        return
    if journal.is_switched():
        exchange(journal.aside, journal.directory)
        sync_directory(journal.directory.parent)
    failpoints.reach("adopt.going_back")
    if journal.releasing:
        _remove_copy(journal)
    else:
        with suppress(FileNotFoundError):
            journal.aside.unlink()
        if os.path.lexists(journal.place):
            if not journal.is_back():
                return  # it is all there is; the journal stays, and who comes next is told
            tree.remove(journal.place)
    journal.remove()


def _finish(tree: MountedTree, journal: Journal) -> None:
    """Remove what was there before the switch; the journal says that it may go before the first of it does."""
    journal.decide()
    failpoints.reach("adopt.after_decision")
    if journal.releasing:
        with suppress(FileNotFoundError):
            journal.aside.unlink()
        if os.path.lexists(journal.place):
            tree.remove(journal.place)
    else:
        if journal.evictable:
            _mark(tree, journal.place, True)
        remove_tree(journal.aside)
    failpoints.reach("adopt.after_removal")
    journal.remove()


def _settle(tree: MountedTree, journal: Journal) -> None:
    """Bring to an end what was interrupted: forward if it was switched, else back; or say what to do."""
    if not journal.read():
        return
    if journal.decided:
        _finish(tree, journal)
        return
    if not journal.is_switched():
        _settle_unswitched(tree, journal)
        return
    # Whoever wrote since the switch wrote to what the directory is now.
    old = journal.place if journal.releasing else journal.aside
    if fingerprint(old) == journal.fingerprint and not users(old, writing=True):
        _finish(tree, journal)
        return
    raise NotAdoptable(
        journal.directory,
        f"was being moved, and that was interrupted while somebody wrote: what it was before is in {str(old)!r}; "
        f"compare the two, bring what you need to {str(journal.directory)!r}, remove {str(old)!r} and "
        f"{str(journal.path)!r}, then try again",
    )


def _settle_unswitched(tree: MountedTree, journal: Journal) -> None:
    if journal.releasing or journal.is_back():
        _go_back(tree, journal)
        return
    reason = "was being moved, and the link that was left is gone: what it was is in"
    if journal.aside.is_dir() and not journal.aside.is_symlink():
        raise NotAdoptable(
            journal.directory, f"{reason} {str(journal.aside)!r}; move that back, remove {str(journal.path)!r}"
        )
    if journal.leads_to_place():
        # The switch was made, and somebody has removed what was there before: nothing else is left.
        _finish(tree, journal)
        return
    if os.path.lexists(journal.place):
        raise NotAdoptable(
            journal.directory,
            f"{reason} {str(journal.place)!r}; bring what you need of that back and remove {str(journal.path)!r}",
        )
    _go_back(tree, journal)


def _remove_copy(journal: Journal) -> None:
    if journal.aside.is_symlink():
        journal.aside.unlink()
    elif journal.aside.is_dir():
        remove_tree(journal.aside)


@contextmanager
def _turn(tree: MountedTree, directory: Path) -> Iterator[Journal]:
    if directory == Path("/"):
        raise NotAdoptable(directory, "holds the vault itself")
    if not directory.parent.is_dir():
        raise NotAdoptable(directory, "is not there")
    with one_at_a_time(directory):
        yield journal_of(tree.mount, directory)


def _tree(client: Client, directory: Path) -> MountedTree:
    tree = MountedTree.of(client)
    if tree is None:
        raise NotUnderMount(directory, None)
    return tree


def _settled_snapshot(client: Client, directory: Path, content: Path) -> tuple[SnapshotRef, bytes]:
    """Return a snapshot, and the fingerprint that the content had before and after it was taken."""
    for _ in range(_ATTEMPTS):
        before = fingerprint(content)
        snapshot = take_snapshot(client, content, ["."], statuses=(status for _, status in walk(content)))
        if fingerprint(content) == before:
            return snapshot, before
    raise NotAdoptable(directory, "is being written to; stop whoever writes and try again")


def _copy(client: Client, snapshot: SnapshotRef, target: Path) -> None:
    from taskvault.content_source import content_source
    from taskvault.snapshot_reference import dereference
    from tvfs.ingest.materialise import materialise

    with content_source(client) as source:
        materialise(source, dereference(snapshot), os.fsencode(target))


def _sync_mount(place: Path) -> None:
    sync_directory(place.parent)
    sync_directory(place.parent.parent)


def _marked(tree: MountedTree, directory: Path, evictable: bool) -> Adoption:
    if not directory.is_dir() or directory.is_symlink():
        raise NotAdoptable(directory, "is not a directory")
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        raise NotAdoptable(directory, "has a name that is not UTF-8, and lies under the mount already") from None
    if not evictable and not _is_evictable(tree, directory):
        raise NotAdoptable(directory, "lies under the mount, and is not evictable")
    _mark(tree, directory, evictable)
    return _measured(tree, directory, directory)


def _mark(tree: MountedTree, place: Path, evictable: bool) -> None:
    tree.client.call(MarkEvictable(tree.relative(place), evictable=evictable))


def _is_evictable(tree: MountedTree, place: Path) -> bool:
    return tree.client.call(DescribePath(tree.relative(place)), timeout_s=_MEASURE_TIMEOUT_S).evictable


def _measured(tree: MountedTree, directory: Path, place: Path) -> Adoption:
    found = tree.client.call(MeasurePath(tree.relative(place)), timeout_s=_MEASURE_TIMEOUT_S)
    return Adoption(directory, place, found.files, found.logical_bytes)
