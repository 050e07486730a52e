"""What keeps a content: the entries, snapshots and attached trees that it is in, found by looking into them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from tvd.entry_views import SNAPSHOT_SCOPE
from tvfs.catalog.catalog import Family
from tvfs.content.tree_index import page_key
from tvfs.filesystem.inspection import Description, Inspection
from tvfs.filesystem.ranges import decode_range
from tvfs.vault.entries import StoredEntry
from tvfs.vault.pace import Pace
from tvfs.vault.references import TREE_KEY, Kind, id_of, references_of
from tvfs.vault.vault import Vault

MOST_KEEPERS = 100
MOST_PAGES = 20_000
"""Of tree indexes, 256 names each: a few seconds; beyond it is said that not everything was looked at."""
SLICE = 256


class _Enough(Exception):
    """The bound on what is looked at was reached."""


class Keepers:
    """Finds what keeps a content; in slices."""

    def __init__(self, vault: Vault, inspection: Inspection) -> None:
        self._vault = vault
        self._inspection = inspection

    async def of(self, path: str, description: Description) -> list[str]:
        """Return what keeps what is at `path`, at most `MOST_KEEPERS`, each as docs/reference/json.md has it."""
        found = [f"name {path or '.'}"]
        found += ["open"] if description.is_open else []
        found += ["lease"] if description.weight.leased else []
        target = description.content
        if target is None:
            return found
        count = self._vault.catalog.count(target)
        if count <= description.own_references:
            return found
        search = _Search(self._vault, target)
        try:
            found += await self._entries(search)
            found += await self._attached(search, description.ino)
        except _Enough:
            return [*found[: MOST_KEEPERS - 1], "and perhaps more: not everything was looked at"]
        others = count - description.own_references - search.references
        if target[0] != Kind.TREE and others > 0:
            found.append(f"{others} other file{'s' if others > 1 else ''}")
        return found[:MOST_KEEPERS]

    async def _entries(self, search: _Search) -> list[str]:
        found = []
        after: tuple[str, str] | None = None
        while page := self._vault.entries.list_entries(after=after, limit=SLICE):
            for entry in page:
                if entry.snapshot is not None and await search.holds(entry.snapshot.index):
                    found.append(_label(entry))
            after = (page[-1].scope, page[-1].key)
            await search.pace.breathe()
        return found

    async def _attached(self, search: _Search, ino: int) -> list[str]:
        found = []
        start = b""
        while part := list(islice(self._vault.catalog.scan(Family.RANGE, start), SLICE)):
            for _, row in part:
                attached = decode_range(row)
                if await search.holds(attached.index) and not attached.first <= ino < attached.end:
                    path = await self._inspection.path_of(attached.first, search.pace)
                    found += [f"name {path.decode('utf-8', 'surrogateescape')}"] if path is not None else []
            start = part[-1][0] + b"\0"
            await search.pace.breathe()
        return found


class _Search:
    """Looks for one object in trees; each tree once, however many things it is in."""

    def __init__(self, vault: Vault, target: bytes) -> None:
        self._catalog = vault.catalog
        self._function = vault.hash_function.name
        self._target = target
        self._known: dict[bytes, bool] = {}
        self._pages = 0
        self.references = 0
        """How many references to the object were seen in trees."""
        self.pace = Pace()

    async def holds(self, index: bytes) -> bool:
        """Whether the object is, or is in, the tree with this index; raise `_Enough`."""
        waiting = [index]
        while waiting:
            looked_at = waiting[-1]
            if looked_at in self._known:
                waiting.pop()
                continue
            children, inside = await self._look(looked_at)
            unknown = [child for child in children if child not in self._known]
            if unknown:
                waiting += unknown
                continue
            self._known[waiting.pop()] = bool(inside) or any(map(self._known.__getitem__, children))
            self.references += inside
        return self._known[index]

    async def _look(self, index: bytes) -> tuple[Iterable[bytes], int]:
        """Return the trees in a tree, and how often it refers to the object or is it."""
        refers: list[bytes] = []
        row = self._catalog.get(Family.TREE, index)
        if row is not None:
            refers += references_of(Family.TREE, index, row, self._function)
        number = 0
        while (page := self._catalog.get(Family.TREEPAGE, page_key(index, number))) is not None:
            refers += references_of(Family.TREEPAGE, page_key(index, number), page, self._function)
            number += 1
            self._pages += 1
            if self._pages > MOST_PAGES:
                raise _Enough
            await self.pace.breathe()
        children = dict.fromkeys(id_of(key) for key in refers if key[0] == Kind.TREE)
        return children, refers.count(self._target) + (self._target == TREE_KEY + index)


def _label(entry: StoredEntry) -> str:
    if entry.scope == SNAPSHOT_SCOPE:
        return f"snapshot {entry.key}"
    return f"entry {entry.scope}/{entry.key}"
