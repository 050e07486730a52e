"""Entries: each can be read, and all of what it finds is there.  What cannot be had any more is no hit: it is removed.

With the entry goes what the mount shows of it, at the next start, and an audit record tells of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Family
from tvfs.digest import Digest, DigestInvalid
from tvfs.filesystem.evictable_rows import ABOUT_FILES
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.tree_rebuild import Pair, read_root
from tvfs.vault.entry_totals import ROW as TOTALS
from tvfs.vault.entry_totals import count_entries, decode_totals, encode_totals
from tvfs.vault.entry_usage import BY_AGE, BY_EXPIRY, BY_RANK, usage_rows
from tvfs.vault.names import NameInvalid, check_key, check_scope
from tvfs.vault.stored_entry import (
    KINDS,
    EntryInvalid,
    StoredEntry,
    StoredSnapshot,
    decode_entry,
    encode_entry,
    names_of_row,
)

CHECK = "entries"
VIEW_CHANGING = b"view:"
"""Row of family `sys`, followed by scope, 0x00, key: the next start makes the view anew."""


def check_entries(exam: Examination) -> Iterator[Step]:
    """Yield what removes entries that find nothing any more, and puts their figures right."""
    for row_key, row in exam.catalog.scan(Family.ENTRY):
        try:
            entry = decode_entry(row_key, row)
        except EntryInvalid:
            yield _removed(exam, row_key, "its row cannot be read")
            continue
        reason = _reason_against(exam, entry)
        if reason:
            yield _removed(exam, row_key, reason)
            continue
        snapshot = entry.snapshot
        root = None if snapshot is None else read_root(exam, snapshot.index)
        if snapshot is not None and root is not None and (snapshot.files, snapshot.size) != (root.files, root.bytes):
            right = msgspec.structs.replace(snapshot, files=root.files, size=root.bytes)
            batch = Batch()
            batch.put(Family.ENTRY, row_key, encode_entry(msgspec.structs.replace(entry, snapshot=right)))
            what = "it tells other figures than its tree"
            yield Step(Finding(CHECK, _name(row_key), what, "put right"), batch)


def check_usage(exam: Examination) -> Iterator[Step]:
    """Yield what makes the rows by rank, age and end of life, and the sums over all entries, those of the entries."""
    for row_key, row in exam.catalog.scan(Family.ENTRY):
        rows = sorted(usage_rows(decode_entry(row_key, row)))
        missing = [
            key for key, found in zip(rows, exam.catalog.get_many(Family.USAGE, rows), strict=True) if found is None
        ]
        if missing:
            batch = Batch()
            for key in missing:
                batch.put(Family.USAGE, key, b"")
            yield Step(Finding("usage", _name(row_key), "eviction does not know of it", "made known"), batch)
    for key, _ in exam.catalog.scan(Family.USAGE):
        if key[:1] not in ABOUT_FILES and not _is_of_an_entry(exam, key):
            batch = Batch()
            batch.delete(Family.USAGE, key)
            yield Step(Finding("usage", f"row {key.hex()}", "it belongs to no entry", "removed"), batch)
    yield from _check_totals(exam)


def _check_totals(exam: Examination) -> Iterator[Step]:
    stored = exam.catalog.get(Family.SYS, TOTALS)
    if stored is None:
        return  # counted at the next start
    counted = count_entries(exam.catalog)
    if decode_totals(stored) != counted:
        batch = Batch()
        batch.put(Family.SYS, TOTALS, encode_totals(counted))
        yield Step(Finding("usage", "sums over entries", "they are not what the entries add up to", "counted"), batch)


def _reason_against(exam: Examination, entry: StoredEntry) -> str | None:
    try:
        check_scope(entry.scope)
        check_key(entry.key)
    except NameInvalid:
        return "its name cannot be one"
    if entry.kind not in KINDS:
        return f"it is of no known kind ({entry.kind!r})"
    return None if entry.snapshot is None else _reason_against_snapshot(exam, entry.snapshot)


def _reason_against_snapshot(exam: Examination, snapshot: StoredSnapshot) -> str | None:
    try:
        tree = Digest.parse(snapshot.tree)
        attributes = None if snapshot.attributes is None else Digest.parse(snapshot.attributes)
    except DigestInvalid:
        return "the digest of its tree cannot be read"
    if Pair(tree.hash, None if attributes is None else attributes.hash).index(exam) != snapshot.index:
        return "its index is another tree's"
    if read_root(exam, snapshot.index) is None:
        return "its tree is gone"
    return None if exam.tree_is_whole(snapshot.index) else "some of its content is gone"


def _removed(exam: Examination, row_key: bytes, reason: str) -> Step:
    batch = Batch()
    batch.delete(Family.ENTRY, row_key)
    try:
        decoded = decode_entry(row_key, exam.catalog.get(Family.ENTRY, row_key) or b"")
        for usage_key in usage_rows(decoded):
            batch.delete(Family.USAGE, usage_key)
    except EntryInvalid:  # its rows of usage are found by the check of them
        pass
    scope, key = names_of_row(row_key)
    if _is_text(row_key):
        batch.put(Family.SYS, VIEW_CHANGING + row_key, b"")
    exam.note(batch, "remove", scope=scope, key=key, detail=reason)
    return Step(Finding(CHECK, _name(row_key), reason, "removed"), batch)


def _is_of_an_entry(exam: Examination, usage_key: bytes) -> bool:
    row_key = b""
    if usage_key[:1] in (BY_RANK, BY_EXPIRY):
        row_key = usage_key[9:]
    elif usage_key[:1] == BY_AGE:
        scope, _, rest = usage_key[1:].partition(b"\0")
        row_key = scope + b"\0" + rest.partition(b"\0")[2][8:]
    row = exam.catalog.get(Family.ENTRY, row_key)
    return row is not None and usage_key in usage_rows(decode_entry(row_key, row))


def _is_text(row_key: bytes) -> bool:
    try:
        scope, _, key = row_key.decode().partition("\0")
        check_scope(scope)
        check_key(key)
    except (UnicodeDecodeError, NameInvalid):
        return False
    return True


def _name(row_key: bytes) -> str:
    scope, key = names_of_row(row_key)
    return f"entry {scope}/{key}"
