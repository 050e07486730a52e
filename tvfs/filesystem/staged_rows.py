"""Short files that are staged in their rows: the bytes are a value of family `staging`, and in no file of the disk.

They are not kept in memory beside: a program makes thousands of short files before the first is sealed.
"""

from __future__ import annotations

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.filesystem.staged_file import StagedFile, decode_row
from tvfs.plugin_api.buffer import Buffer

REWRITES_MAX = 8
"""How often a row is written before its bytes go to a file, where a write costs only what it writes."""


class StagedRows:
    """Reads them anywhere, changes them in the owner only."""

    def __init__(self, catalog: Catalog, settings: FilesystemSettings) -> None:
        self._catalog = catalog
        self._most_bytes = settings.staged_in_row_bytes

    def take(self, size: int) -> bool:
        """Whether a file of so many bytes may be in its row."""
        return size <= self._most_bytes

    def take_more(self, file: StagedFile, size: int) -> bool:
        """Whether one that is in its row may be written again, and be so long then."""
        return file.rewrites < REWRITES_MAX and self.take(size)

    def content(self, file: StagedFile) -> bytes:
        """Return all bytes of a file that is in its row."""
        content = self.find(file)
        assert content is not None, "only the owner asks, who has not moved them"
        return content

    def find(self, file: StagedFile) -> bytes | None:
        """Return all bytes of the file if they are in its row still; in any thread."""
        row = self._catalog.get(Family.STAGING, file.ino.to_bytes(8, "big"))
        if row is None:
            return None
        decoded = decode_row(row)[0]
        return decoded.content if decoded.content and decoded.generation == file.generation else None

    def splice(self, file: StagedFile, offset: int, data: Buffer) -> None:
        """Write bytes into the file; zeros where it ended before."""
        before = self.content(file)
        end = offset + len(data)
        self._put(file, b"".join((before[:offset].ljust(offset, b"\0"), data, before[end:])))

    def cut(self, file: StagedFile, size: int) -> None:
        """Set the length, beyond the old one with zeros."""
        self._put(file, self.content(file)[:size].ljust(size, b"\0"))

    def _put(self, file: StagedFile, content: bytes) -> None:
        batch = Batch()
        batch.put(Family.STAGING, file.ino.to_bytes(8, "big"), file.row_with(content))
        self._catalog.write(batch)
        file.rewrites += 1
        file.size = len(content)
