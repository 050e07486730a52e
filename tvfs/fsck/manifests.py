"""Manifests: rows of blobs and of their pages.  One that is none is removed; later checks tell what needed it."""

from __future__ import annotations

from collections.abc import Iterator

from tvfs.catalog.catalog import Batch, Family
from tvfs.content.manifest import Manifest, ManifestInvalid
from tvfs.digest import FUNCTION_CODES, HASH_BYTES, HOLE, OWN_FUNCTION_CODE, function_code
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.vault.commit_check import CommitRejected, chunks_of, pages_of

CHECK = "manifests"
_CODES = frozenset({OWN_FUNCTION_CODE, *FUNCTION_CODES.values()})


def check_manifests(exam: Examination) -> Iterator[Step]:
    """Yield what removes rows that are no manifests, and with `content` those of another content than their key's."""
    for key, row in exam.catalog.scan(Family.PAGE):
        reason = _page_reason(exam, key, row)
        if reason:
            yield _removed(Family.PAGE, key, f"page {key.hex()}", reason)
    for key, row in exam.catalog.scan(Family.BLOB):
        reason = _blob_reason(exam, key, row)
        if reason:
            yield _removed(Family.BLOB, key, f"blob {key[1:].hex()}", reason)


def _page_reason(exam: Examination, key: bytes, row: bytes) -> str | None:
    if exam.hash_function.digest(row) != key:
        return "its bytes do not have its hash"
    try:
        page = Manifest(row)
        chunks_of(page)
    except (ManifestInvalid, CommitRejected):
        return "it is no page of a manifest"
    return "it is no page of a manifest" if page.level else None


def _blob_reason(exam: Examination, key: bytes, row: bytes) -> str | None:
    if len(key) != HASH_BYTES + 1 or key[0] not in _CODES:
        return "its key is no digest"
    try:
        root = Manifest(row)
        parts = pages_of(root) if root.level else chunks_of(root)
    except (ManifestInvalid, CommitRejected) as exc:
        return f"it is no manifest: {exc}"
    if root.level:
        for page_hash, covered_bytes in parts:
            page = exam.catalog.get(Family.PAGE, page_hash)
            if page is not None and Manifest(page).size != covered_bytes:
                return f"its page {page_hash.hex()} covers other bytes than it says"
    return _content_reason(exam, key, root) if exam.content else None


def _content_reason(exam: Examination, key: bytes, root: Manifest) -> str | None:
    """Return why a manifest is that of another content; None also where a part of it cannot be read."""
    if key[0] != function_code(exam.hash_function.name):
        return None  # under a function that no plugin here may know
    hasher = exam.hash_function.hasher()
    try:
        for length, chunk_id in exam.items(root):
            if chunk_id == HOLE:
                for start in range(0, length, len(_ZEROS)):
                    hasher.update(_ZEROS[: min(len(_ZEROS), length - start)])
                continue
            chunk = exam.chunk(chunk_id)
            if chunk is None:
                return None
            if len(chunk) != length:
                return f"chunk {chunk_id.hex()} has another length than it says"
            hasher.update(chunk)
    except ManifestInvalid:
        return None
    return None if hasher.digest() == key[1:] else "what it lists does not have its hash"


_ZEROS = bytes(1 << 20)


def _removed(family: Family, key: bytes, where: str, reason: str) -> Step:
    batch = Batch()
    batch.delete(family, key)
    return Step(Finding(CHECK, where, reason, "removed; what needs it is told below"), batch)
