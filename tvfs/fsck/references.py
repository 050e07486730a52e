"""Counts of references, made again from the rows that refer; and objects that nothing refers to, which must be known.

Bounded: at most `objects_at_a_time` objects are counted in one pass over the rows; a larger vault takes several passes,
each for a part of all ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tvfs.catalog.catalog import Batch, Family
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.vault.counting import decode_count, encode_count
from tvfs.vault.recount import OBJECTS, is_dead_chunk, search_expected
from tvfs.vault.references import REFERRING, Kind, describe, id_of, object_of_row, references_of

CHECK = "references"
_ROW_BYTES = 8
_MOST_PARTS = 256
_Chooses = Callable[[bytes], bool]


def check_references(exam: Examination) -> Iterator[Step]:
    """Yield what makes families `ref` and `doomed` true; nothing where the next start counts anew anyway."""
    if not exam.counted:
        return
    objects = sum(
        1 for family in (Family.CHUNK, Family.BLOB, Family.PAGE, Family.TREE) for _ in exam.catalog.scan(family)
    )
    parts = min(_MOST_PARTS, objects // exam.objects_at_a_time + 1)
    for part in range(parts):
        yield from _check_part(exam, part, parts)


def _check_part(exam: Examination, part: int, parts: int) -> Iterator[Step]:
    def is_ours(key: bytes) -> bool:
        return id_of(key)[0] * parts >> 8 == part

    counts: dict[bytes, int] = {}
    for family in sorted(REFERRING):
        for row_key, value in exam.catalog.scan(family):
            for key in references_of(family, row_key, value, exam.hash_function.name):
                if is_ours(key):
                    counts[key] = counts.get(key, 0) + 1
    yield from _check_counts(exam, counts, is_ours)
    yield from _check_doomed(exam, counts, is_ours)
    yield from _check_unwanted(exam, counts, is_ours)


def _check_counts(exam: Examination, counts: dict[bytes, int], is_ours: _Chooses) -> Iterator[Step]:
    right: set[bytes] = set()
    wrong = 0
    for key, value in exam.catalog.scan(Family.REF):
        if not _is_object(key):
            batch = Batch()
            batch.delete(Family.REF, key)
            yield Step(Finding(CHECK, f"count {key.hex()}", "it is of nothing that there can be", "removed"), batch)
        elif is_ours(key):
            counted = decode_count(value) if len(value) == _ROW_BYTES else -1
            right.add(key)
            if counted != counts.get(key, 0):
                wrong += 1
                yield _recounted(exam, key, counted, counts.get(key, 0))
    for key in sorted(counts.keys() - right):
        wrong += 1
        yield _recounted(exam, key, 0, counts[key])
    if wrong and exam.references_changed:
        what = "what was repaired changed how often they are referred to"
        finding = Finding(CHECK, f"{wrong} objects", what, "counted", after_stop=not exam.references_damaged)
        yield Step(finding)


def _recounted(exam: Examination, key: bytes, counted: int, referring: int) -> Step:
    batch = Batch()
    if referring:
        batch.put(Family.REF, key, encode_count(referring))
    else:
        batch.delete(Family.REF, key)
    what = (
        f"it is referred to {referring} times, and {counted if counted >= 0 else 'nobody knows how many'} were counted"
    )
    # One line for all that follow from other repairs: they were no faults of their own.
    return Step(None if exam.references_changed else Finding(CHECK, describe(key), what, "counted anew"), batch)


def _check_doomed(exam: Examination, counts: dict[bytes, int], is_ours: _Chooses) -> Iterator[Step]:
    for key, value in exam.catalog.scan(Family.DOOMED):
        if not _is_object(key) or (is_ours(key) and not value and counts.get(key)):
            batch = Batch()
            batch.delete(Family.DOOMED, key)
            where = describe(key) if _is_object(key) else f"row {key.hex()}"
            yield Step(Finding(CHECK, where, "it was to be let go, and something refers to it", "kept"), batch)


def _check_unwanted(exam: Examination, counts: dict[bytes, int], is_ours: _Chooses) -> Iterator[Step]:
    searching = search_expected(exam.catalog) or not exam.clean
    last = b""
    for family in OBJECTS:
        for row_key, value in exam.catalog.scan(family):
            key = object_of_row(family, row_key)
            if key is None or key == last or not _is_object(key) or not is_ours(key) or key in counts:
                continue
            last = key
            if is_dead_chunk(family, value) or exam.catalog.get(Family.DOOMED, key) is not None:
                continue
            batch = Batch()
            batch.put(Family.DOOMED, key, b"")
            finding = Finding(CHECK, describe(key), "nothing refers to it, and nobody knows", "to be let go")
            # After a stop without order nobody can know what was just stored: it is no fault, and the next start looks.
            yield Step(None if searching else finding, batch)


def _is_object(key: bytes) -> bool:
    if not key or key[0] not in set(Kind):
        return False
    return len(key) == (34 if key[0] == Kind.BLOB else 33)
