"""What `tv cache` does: paths saved under a key, and given back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskvault.client import Client
from taskvault.mounted import MountedTree, PathInTheWay, merge, publish_new
from taskvault.protocol.messages import Entry, FindNewest, GetEntry, ListEntries, SaveEntry
from tvfs.errors import TaskVaultError

SAVED = "saved"
PAGE_ENTRIES = 1000
LOOKED_AT_FOR_NEAR = 200
"""Keys that are compared with one that is missing, from the first on and from those that begin like it."""


class KindMismatch(TaskVaultError):
    """A key finds something other than saved paths."""

    def __init__(self, key: str, kind: str) -> None:
        super().__init__(f"The key {key!r} finds the result of a {kind}, not saved paths; `tv why` explains runs.")
        self.key = key


class KeyTaken(TaskVaultError):
    """A key may be used again only on request; found out before anything is read."""

    def __init__(self, scope: str, key: str) -> None:
        super().__init__(
            f"The key {key!r} exists in scope {scope!r} already; replace it with --replace, or choose another."
        )
        self.key = key


@dataclass(frozen=True, slots=True)
class Keeping:
    """How what is saved is kept."""

    replace: bool = False
    """Put it in the place of what the key finds now."""
    ttl_s: float | None = None
    """Time to live from now; None: it does not expire."""
    pinned: bool = False
    """Never evict it; a time to live ends all the same."""


def save_under(
    client: Client, key: str, base: Path, paths: Sequence[str], *, scope: str, keeping: Keeping = Keeping()
) -> Entry:
    """Save paths under a key, all or nothing; raise `KeyTaken`, and what `take_snapshot` and the owner raise."""
    # Asked first: the owner checks again, but reading a large tree for nothing would be unkind.
    existing = client.call(GetEntry(scope, key)).entry
    if existing is not None and not keeping.replace:
        raise KeyTaken(scope, key)
    # Imported here: giving back under the mount reads and hashes nothing, and must start fast.
    from taskvault.snapshots import take_snapshot

    snapshot = take_snapshot(client, base, paths)
    request = SaveEntry(
        scope, key, SAVED, snapshot, replace=keeping.replace, ttl_s=keeping.ttl_s, pinned=keeping.pinned
    )
    saved = client.call(request).entry
    assert saved is not None, "the owner answers with the entry"
    return saved


def find(client: Client, key: str, *, scope: str, prefixes: Sequence[str] = (), count_use: bool = True) -> Entry | None:
    """Return what the key finds, else the newest whose key begins with the first prefix that finds any, else None."""
    entry = client.call(GetEntry(scope, key, count_use=count_use)).entry
    for prefix in prefixes:
        if entry is not None:
            break
        entry = client.call(FindNewest(scope, prefix, count_use=count_use)).entry
    return entry


def give_back(client: Client, entry: Entry, target: Path) -> bool:
    """Put what was saved into the directory `target`; return whether it was attached rather than copied.

    Under the mount, a `target` that does not exist is attached whole, by one rename; into one that does, each saved
    path that is not there yet is, and directories that are there are merged by file.  Raises `PathInTheWay` and what
    `materialise` raises.
    """
    if entry.kind != SAVED or entry.snapshot is None:
        raise KindMismatch(entry.key, entry.kind)
    tree = MountedTree.of(client)
    place = Path(os.path.abspath(target))
    if os.path.lexists(place):
        place = Path(os.path.realpath(place))
    if tree is None or not tree.holds(place) or place == tree.mount:
        _copy(client, entry, place)
        return False
    with tree.attached(entry.snapshot) as prepared:
        if not os.path.lexists(place):
            os.makedirs(place.parent, exist_ok=True)
            publish_new(prepared, place)
        elif place.is_dir():
            merge(prepared, place)
        else:
            raise PathInTheWay(place, "is not a directory")
    return True


def near_keys(client: Client, key: str, *, scope: str) -> list[str]:
    """Return up to three keys of the scope that look most like one that is missing, of some hundred looked at."""
    begins_like_it = key[: (len(key) + 1) // 2]
    starts: list[tuple[str, str] | None] = [None]
    if begins_like_it not in (".", ".."):  # which are no keys
        starts.append((scope, begins_like_it))
    pages = [client.call(ListEntries(scope=scope, after=after, limit=LOOKED_AT_FOR_NEAR)).entries for after in starts]
    known = {entry.key for page in pages for entry in page if entry.kind == SAVED}
    # Imported here: only a miss needs it.
    from difflib import get_close_matches

    return get_close_matches(key, known, n=3, cutoff=0.5)


def all_entries(
    client: Client, scope: str | None, *, damaged: Callable[[str], None] = lambda sentence: None
) -> Iterator[Entry]:
    """Yield every entry, of one scope or of all, in key order; `damaged` hears of those that cannot be read."""
    after: tuple[str, str] | None = None
    while True:
        answer = client.call(ListEntries(scope=scope, after=after, limit=PAGE_ENTRIES))
        for sentence in answer.damage:
            damaged(sentence)
        page = answer.entries
        yield from page
        if len(page) < PAGE_ENTRIES:
            return
        after = (page[-1].scope, page[-1].key)


def _copy(client: Client, entry: Entry, place: Path) -> None:
    # Imported here: under the mount nothing is copied.
    from taskvault.content_source import content_source
    from taskvault.snapshot_reference import dereference
    from tvfs.ingest.materialise import materialise

    assert entry.snapshot is not None
    with content_source(client) as source:
        materialise(source, dereference(entry.snapshot), os.fsencode(place))
