"""Tree indexes: built anew from Directory and attributes, and compared with the rows that are there.

Each is compared with the stored roots of its subdirectories, so no order is needed and nothing is remembered: where
something was wrong, all are looked at again, until nothing is.  The other way round an index tells all that Directory
and attributes do: if one of them is gone, it is made from the index and stored again.
"""

from __future__ import annotations

from collections.abc import Iterator

from tvfs.catalog.catalog import Batch, Family, prefix_end
from tvfs.content.tree_builder import BuiltDirectory
from tvfs.content.tree_index import IndexEntry, TreeIndexRoot
from tvfs.digest import HASH_BYTES, Digest, DigestInvalid
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.tree_rebuild import (
    ChildMissing,
    Pair,
    Unbuildable,
    build_index,
    build_objects,
    read_entries,
    read_root,
)
from tvfs.vault.stored_entry import EntryInvalid, decode_entry

CHECK = "trees"
_MOST_PASSES = 2000
"""Each pass puts right what the one before made visible one level further up."""


def check_trees(exam: Examination) -> Iterator[Step]:
    """Yield what makes tree indexes whole and true."""
    yield from _check_roots(exam)
    yield from _build_roots_of_entries(exam)
    for _ in range(_MOST_PASSES):
        changed = False
        for step in _compare_all(exam):
            changed = True
            yield step
        if not changed:
            break
    yield from _check_pages(exam)


def _check_roots(exam: Examination) -> Iterator[Step]:
    for key, _ in exam.catalog.scan(Family.TREE):
        if read_root(exam, key) is None:
            batch = Batch()
            batch.delete(Family.TREE, key)
            what = "its root cannot be read, or is another tree's"
            yield Step(Finding(CHECK, f"tree {key.hex()}", what, "removed; built anew where something needs it"), batch)


def _build_roots_of_entries(exam: Examination) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.ENTRY):
        try:
            snapshot = decode_entry(key, row).snapshot
            if snapshot is None:
                continue
            tree = Digest.parse(snapshot.tree)
            attributes = None if snapshot.attributes is None else Digest.parse(snapshot.attributes)
        except (EntryInvalid, DigestInvalid):
            continue  # the check of entries says so
        pair = Pair(tree.hash, None if attributes is None else attributes.hash)
        if pair.index(exam) == snapshot.index and read_root(exam, snapshot.index) is None:
            yield from _build_missing(exam, pair)


def _compare_all(exam: Examination) -> Iterator[Step]:
    for index, _ in exam.catalog.scan(Family.TREE):
        root = read_root(exam, index)  # as it is now: an earlier step may have removed it
        if root is not None:
            yield from _compare(exam, index, root)


def _compare(exam: Examination, index: bytes, root: TreeIndexRoot) -> Iterator[Step]:
    entries = read_entries(exam, index, root)
    pair = Pair(root.tree_hash, root.attributes_hash or None)
    try:
        built = build_index(exam, pair, {entry.name: entry.content_kind for entry in entries or ()})
    except ChildMissing as exc:
        built_any = False
        for step in _build_missing(exam, exc.pair):
            built_any = True
            yield step
        if not built_any and entries is None:
            yield _removed(index, f"the index {exc.pair.index(exam).hex()} of a subdirectory is gone")
        return
    except Unbuildable as exc:
        yield from _restore_objects(exam, index, root, entries, str(exc))
        return
    if any(exam.catalog.get(family, key) != value for family, key, value in built.rows):
        yield _rebuilt(index, built, "its index is not what Directory and attributes say")


def _build_missing(exam: Examination, wanted: Pair) -> Iterator[Step]:
    """Yield what builds an index that is missing, those of its subdirectories first; nothing if that cannot be."""
    stack = [wanted]
    while stack:
        pair = stack[-1]
        try:
            built = build_index(exam, pair, {})
        except ChildMissing as exc:
            if exc.pair in stack:
                return
            stack.append(exc.pair)
            continue
        except Unbuildable:
            return
        yield _rebuilt(pair.index(exam), built, "its index is gone")
        if read_root(exam, pair.index(exam)) is None:
            return
        stack.pop()


def _restore_objects(
    exam: Examination, index: bytes, root: TreeIndexRoot, entries: list[IndexEntry] | None, reason: str
) -> Iterator[Step]:
    """Store Directory and attributes again if the index is whole in itself; remove the index if it is not either."""
    if entries is None:
        yield _removed(index, reason)
        return
    try:
        built = build_objects(exam, root, entries)
    except Unbuildable:
        return  # it can be attached as it is; the check of content tells what is gone
    batch = Batch()
    objects = [raw for raw in (built.tree, built.attributes) if raw is not None and exam.can_store(raw)]
    exam.store(batch, [raw for raw in objects if exam.blob(exam.hash_function.digest(raw), len(raw)) is None])
    if batch:
        yield Step(Finding(CHECK, f"tree {index.hex()}", reason, "made from its index and stored again"), batch)


def _check_pages(exam: Examination) -> Iterator[Step]:
    """Remove pages that their root does not count; those without a root are let go like any object."""
    for key, _ in exam.catalog.scan(Family.TREEPAGE):
        index, number = key[:HASH_BYTES], int.from_bytes(key[HASH_BYTES:], "big")
        root = read_root(exam, index)
        if len(key) == HASH_BYTES + 4 and (root is None or number < len(root.page_names)):
            continue
        batch = Batch()
        batch.delete(Family.TREEPAGE, key)
        yield Step(Finding(CHECK, f"tree {index.hex()}", f"it has a page {number} too many", "removed"), batch)


def _rebuilt(index: bytes, built: BuiltDirectory, what: str) -> Step:
    batch = Batch()
    for family, key, value in built.rows:
        batch.put(family, key, value)
    return Step(Finding(CHECK, f"tree {index.hex()}", what, "built anew"), batch)


def _removed(index: bytes, reason: str) -> Step:
    batch = Batch()
    batch.delete(Family.TREE, index)
    batch.delete_range(Family.TREEPAGE, index, prefix_end(index) or b"\xff" * 40)
    what = f"a page of its index is gone or damaged, and {reason}"
    return Step(Finding(CHECK, f"tree {index.hex()}", what, "removed; what needs it is told below"), batch)
