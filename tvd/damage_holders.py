"""Whose content a damaged chunk is: entries, named snapshots and files under `work/`, with paths where that is cheap.

All rows that refer are read once, those of trees until no more is found, at half speed: the other half of the time is
everybody else's.  What is remembered grows with the damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from tvd.entry_views import SNAPSHOT_SCOPE
from tvfs.catalog.catalog import Family
from tvfs.content.tree_index import TreeIndexMissing, decode_page
from tvfs.digest import HASH_BYTES
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.ranges import decode_range
from tvfs.vault.pace import Pace
from tvfs.vault.references import CHUNK_KEY, TREE_KEY, object_of_row, references_of
from tvfs.vault.stored_entry import EntryInvalid, StoredEntry, decode_entry
from tvfs.vault.vault import Vault

MOST_HOLDERS = 1000
MOST_PATHS = 20
"""Named of one entry or attached tree."""
_SLICE = 64


async def holders_of(vault: Vault, filesystem: Filesystem, chunk_ids: Sequence[bytes]) -> list[str]:
    """Return what has some of these chunks: `entry SCOPE/KEY: PATH`, `snapshot NAME: PATH`, `PATH`; at most 1,000."""
    return (await _Search(vault, filesystem, chunk_ids).run())[:MOST_HOLDERS]


class _Search:
    def __init__(self, vault: Vault, filesystem: Filesystem, chunk_ids: Sequence[bytes]) -> None:
        self._vault = vault
        self._filesystem = filesystem
        self._pace = Pace()
        self._bad = {CHUNK_KEY + chunk_id for chunk_id in chunk_ids}
        self._names: dict[bytes, dict[bytes, bytes]] = {}
        """In each bad tree: the names that are bad, with the tree they lead to, or nothing."""

    async def run(self) -> list[str]:
        for family in (Family.PAGE, Family.BLOB, Family.TREE):
            await self._spread(family)
        count = -1
        while count != len(self._bad):
            count = len(self._bad)
            await self._spread(Family.TREEPAGE)
        return [*await self._entries(), *await self._attached(), *await self._inodes()]

    async def _spread(self, family: Family) -> None:
        start = b""
        while part := list(islice(self._vault.catalog.scan(family, start), _SLICE)):
            for key, row in part:
                if not self._bad.isdisjoint(self._references(family, key, row)):
                    whose = object_of_row(family, key)
                    assert whose is not None, "pages, blobs and trees are objects"
                    self._bad.add(whose)
                    if family is Family.TREEPAGE:
                        self._note_names(key, row)
            start = part[-1][0] + b"\0"
            await self._pace.breathe()

    def _note_names(self, key: bytes, row: bytes) -> None:
        index = key[:HASH_BYTES]
        try:
            entries = decode_page(index, int.from_bytes(key[HASH_BYTES:], "big"), row)
        except TreeIndexMissing:
            return
        names = self._names.setdefault(index, {})
        for entry in entries:
            if len(names) >= MOST_PATHS:
                return
            object_keys = self._references(Family.TREEPAGE, key, msgspec.msgpack.encode([1, [entry]]))
            if not self._bad.isdisjoint(object_keys):
                names[entry.name] = entry.child

    async def _entries(self) -> list[str]:
        found: list[str] = []
        start = b""
        while part := list(islice(self._vault.catalog.scan(Family.ENTRY, start), _SLICE)):
            for key, row in part:
                try:
                    entry = decode_entry(key, row)
                except EntryInvalid:
                    continue
                if entry.snapshot is not None and TREE_KEY + entry.snapshot.index in self._bad:
                    found += self._with_paths(_label(entry), entry.snapshot.index)
            start = part[-1][0] + b"\0"
            await self._pace.breathe()
        return found

    async def _attached(self) -> list[str]:
        found: list[str] = []
        for key, row in list(self._vault.catalog.scan(Family.RANGE)):
            attached = decode_range(row)
            if TREE_KEY + attached.index in self._bad:
                path = await self._filesystem.inspection.path_of(int.from_bytes(key, "big"))
                if path is not None:  # otherwise it is the view of an entry, or in the trash
                    found += self._with_paths(path.decode("utf-8", "backslashreplace"), attached.index, "/")
            await self._pace.breathe()
        return found

    async def _inodes(self) -> list[str]:
        bad: set[int] = set()
        for family in (Family.INODE, Family.STAGING):
            start = b""
            while part := list(islice(self._vault.catalog.scan(family, start), _SLICE)):
                for key, row in part:
                    found = [each for each in self._references(family, key, row) if each[:1] != TREE_KEY]
                    if not self._bad.isdisjoint(found):
                        bad.add(int.from_bytes(key, "big"))
                start = part[-1][0] + b"\0"
                await self._pace.breathe()
        return await self._paths_of(bad) if bad else []

    async def _paths_of(self, bad: set[int]) -> list[str]:
        """Files do not know their directory: all names are looked through."""
        places: list[str] = []
        named: set[int] = set()
        start = b""
        while part := list(islice(self._vault.catalog.scan(Family.DIRENT, start), _SLICE)):
            for key, row in part:
                child = int.from_bytes(row[4:12], "big")
                if child in bad and row[1] and len(places) < MOST_HOLDERS:
                    above = await self._filesystem.inspection.path_of(int.from_bytes(key[:8], "big"))
                    if above is not None:
                        named.add(child)
                        places.append((above + b"/" + key[8:]).decode("utf-8", "backslashreplace"))
            start = part[-1][0] + b"\0"
            await self._pace.breathe()
        return sorted(places) + [f"inode {ino}" for ino in sorted(bad - named)]

    def _with_paths(self, label: str, index: bytes, separator: str = ": ") -> list[str]:
        paths = list(islice(self._paths_in(index, b""), MOST_PATHS))
        return [label + separator + path.decode("utf-8", "backslashreplace") for path in paths] or [label]

    def _paths_in(self, index: bytes, above: bytes) -> Iterator[bytes]:
        for name, child in self._names.get(index, {}).items():
            if child:
                yield from self._paths_in(child, above + name + b"/")
            else:
                yield above + name

    def _references(self, family: Family, key: bytes, row: bytes) -> list[bytes]:
        return references_of(family, key, row, self._vault.hash_function.name)


def _label(entry: StoredEntry) -> str:
    return f"snapshot {entry.key}" if entry.scope == SNAPSHOT_SCOPE else f"entry {entry.scope}/{entry.key}"
