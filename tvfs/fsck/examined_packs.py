"""The packs of a vault under repair."""

from __future__ import annotations

from pathlib import Path

from tvfs.packs.pack_directory import PackDirectory


class ExaminedPacks(PackDirectory):
    """Packs, some of whose files would be called otherwise: a dry run reads them where they are."""

    def __init__(self, path: Path, vault_uuid: bytes) -> None:
        self.misplaced: dict[int, Path] = {}
        """Where a pack's file is, whatever its name says."""
        super().__init__(path, vault_uuid)

    def numbers(self) -> list[int]:
        """Return the packs that have a file, in ascending order."""
        return sorted({*super().numbers(), *self.misplaced})

    def _path(self, number: int) -> Path:
        return self.misplaced.get(number) or super()._path(number)
