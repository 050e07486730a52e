"""Where a chunk lies: the value that the index, readers and clients pass around."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """One record in one pack.  Stays true until compaction moves the record; a reader that finds it gone asks again."""

    pack: int
    offset: int
    """Of the record header, in bytes from the start of the pack."""
    stored_bytes: int
    """Length of the payload."""
    raw_bytes: int
    """Length of the chunk."""
    codec: int
    """Id of the compression codec; 0 is raw."""
