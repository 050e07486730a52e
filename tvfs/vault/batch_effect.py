"""What one batch does to the counts, as far as its rows tell; the catalog adds what was counted before."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvfs.catalog.catalog import Delete, DeleteRange, Family, Put
from tvfs.chunks.chunk_row import ChunkState
from tvfs.vault.references import MANIFEST_HEADER, manifest_change, object_of_row

Change = Put | Delete | DeleteRange

_DEAD = bytes([ChunkState.DEAD])


@dataclass(slots=True)
class Effect:
    """What a batch does to the counts."""

    deltas: dict[bytes, int] = field(default_factory=dict)
    born: dict[bytes, None] = field(default_factory=dict)
    """Objects that a row was stored of; newborn if nothing refers to them."""
    gone: list[bytes] = field(default_factory=list)
    wanted: list[bytes] = field(default_factory=list)
    """Referred to for the first time."""
    doomed: list[bytes] = field(default_factory=list)
    """Referred to no more."""
    spilled: list[bytes] = field(default_factory=list)
    inodes: dict[bytes, bytes | None] = field(default_factory=dict)
    """What inode rows refer to now."""
    changes: list[Change] = field(default_factory=list)
    """Rows of families `ref` and `doomed`."""

    def add(self, key: bytes, delta: int) -> None:
        """Count references."""
        self.deltas[key] = self.deltas.get(key, 0) + delta


def note_chunk(effect: Effect, key: bytes, new: bytes | None) -> None:
    """Note what becomes of a chunk: a dead one is no object."""
    whose = object_of_row(Family.CHUNK, key)
    assert whose is not None, "a chunk is an object"
    if new is None or new[2:3] == _DEAD:
        effect.gone.append(whose)
    else:
        effect.born[whose] = None


def note_object(effect: Effect, family: Family, key: bytes, old: bytes | None, new: bytes | None) -> None:
    """Note what becomes of the object that a row is stored in, if it is in one."""
    whose = object_of_row(family, key)
    if whose is None:
        return
    if old is None:
        effect.born[whose] = None
    elif new is None and family is not Family.TREEPAGE:
        effect.gone.append(whose)


def count_manifests(effect: Effect, changes: list[tuple[bytes, bytes]]) -> None:
    """Count what changes of one object's manifest, and of the rest of it in family `doomed`, mean."""
    if len(changes) == 2:
        (one_old, one_new), (other_old, other_new) = changes
        # It moves from one row to the other: nothing changes, however long it is.
        if one_old and other_new and not (one_new or other_old) and _same(one_old, other_new):
            return
        if one_new and other_old and not (one_old or other_new) and _same(one_new, other_old):
            return
    for old, new in changes:
        less, more = manifest_change(old, new)
        for each in less:
            effect.add(each, -1)
        for each in more:
            effect.add(each, 1)


def _same(one: bytes, other: bytes) -> bool:
    header = MANIFEST_HEADER.size
    return one[:2] == other[:2] and one[header:] == other[header:]
