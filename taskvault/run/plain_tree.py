"""A stored tree again, without its attributes: what a run made, for anyone, at any time.

Attached, all of it belongs to whoever attaches it and has one time, that of attaching.  So nothing that was made is
older than its inputs, nor than anything else that was made, and `make` finds nothing to do.  Content is not touched:
the canonical tree is the same, only the index is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvfs.content.attributes import UNKNOWN, OwnAttributes
from tvfs.content.reference import Content
from tvfs.content.tree_builder import DEFAULT_DIRECTORY_MODE, Subdirectory, TreeBuilder
from tvfs.content.tree_index import DIRECTORY, REGULAR, SYMLINK, IndexEntry
from tvfs.ingest.ingest import Ingest
from tvfs.ingest.snapshot_source import SnapshotSource

FILE_MODE = 0o644
EXECUTABLE_MODE = 0o755
LINK_MODE = 0o777


@dataclass(slots=True)
class PlainTree:
    """A tree that was rebuilt."""

    root: Subdirectory
    entries: dict[bytes, IndexEntry | Subdirectory]
    """What was found at the paths that were asked for."""


class PlainTreeBuilder:
    """Rebuilds trees for one ingest, which commits their rows."""

    def __init__(self, source: SnapshotSource, ingest: Ingest) -> None:
        self._source = source
        self._ingest = ingest
        self._builder = TreeBuilder(ingest.settings.hash_function, with_attributes=False)

    def rebuild(self, index: bytes, wanted: Sequence[bytes] = ()) -> PlainTree:
        """Return the tree of an index without attributes, and what lies at the paths `wanted`."""
        found: dict[bytes, IndexEntry | Subdirectory] = {}
        root = self._rebuild(index, b"", frozenset(wanted), found)
        return PlainTree(root, found)

    def build(self, entries: Sequence[IndexEntry], directories: Sequence[tuple[bytes, Subdirectory]]) -> Subdirectory:
        """Add a directory of these entries to the ingest, with its canonical form, and return it."""
        built = self._builder.build(OwnAttributes(DEFAULT_DIRECTORY_MODE), entries, directories)
        self._ingest.add_directory(built)
        return built.directory

    def _rebuild(
        self, index: bytes, path: bytes, wanted: frozenset[bytes], found: dict[bytes, IndexEntry | Subdirectory]
    ) -> Subdirectory:
        entries: list[IndexEntry] = []
        directories: list[tuple[bytes, Subdirectory]] = []
        for entry in self._source.entries(index, self._source.root(index)):
            place = path + b"/" + entry.name if path else entry.name
            if entry.kind == DIRECTORY:
                child = self._rebuild(entry.child, place, wanted, found)
                directories.append((entry.name, child))
                if place in wanted:
                    found[place] = child
            elif entry.kind in (REGULAR, SYMLINK):
                entries.append(plain_entry(entry))
                if place in wanted:
                    found[place] = entry
        return self.build(entries, directories)


def plain_entry(entry: IndexEntry) -> IndexEntry:
    """Return a file or symlink as the canonical tree alone knows it."""
    mode = LINK_MODE if entry.kind == SYMLINK else EXECUTABLE_MODE if entry.mode & 0o111 else FILE_MODE
    return IndexEntry(
        entry.name, entry.kind, mode, UNKNOWN, UNKNOWN, UNKNOWN,
        size=entry.size, content_kind=entry.content_kind, content_hash=entry.content_hash, target=entry.target,
    )  # fmt: skip


def file_entry(name: bytes, content: Content) -> IndexEntry:
    """Return the entry of a plain file with a content that was added to the ingest."""
    return IndexEntry(
        name, REGULAR, FILE_MODE, UNKNOWN, UNKNOWN, UNKNOWN,
        size=content.size, content_kind=int(content.kind), content_hash=content.hash,
    )  # fmt: skip
