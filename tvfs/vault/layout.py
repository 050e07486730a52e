"""Where things lie below the home of a vault; docs/design/on-disk-format.md §1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one vault."""

    home: Path

    @property
    def format(self) -> Path:
        """The format version in decimal: a vault is a directory that has this file."""
        return self.home / "format"

    @property
    def format_being_made(self) -> Path:
        """What `format` is called until the vault is complete: the mark of an interrupted creation."""
        return self.home / "format.new"

    @property
    def superblock(self) -> Path:
        """A copy of the superblock, for a vault that has lost its catalog."""
        return self.home / "superblock"

    @property
    def config(self) -> Path:
        """What the operator may set."""
        return self.home / "config.toml"

    @property
    def ballast(self) -> Path:
        """What gives way when the disk is full."""
        return self.home / "ballast"

    @property
    def lock(self) -> Path:
        """Locked by the owner for its whole life."""
        return self.home / "lock"

    @property
    def socket(self) -> Path:
        """The owner's unix socket."""
        return self.home / "control.sock"

    @property
    def meta(self) -> Path:
        """The catalog."""
        return self.home / "meta"

    @property
    def packs(self) -> Path:
        """The chunk records."""
        return self.home / "packs"

    @property
    def staging(self) -> Path:
        """Bytes written but not yet sealed."""
        return self.home / "staging"

    @property
    def hot(self) -> Path:
        """Decompressed copies of what is read often; not kept over a restart."""
        return self.home / "hot"

    @property
    def mount(self) -> Path:
        """The mount point, unless another was named; no part of the vault's size."""
        return self.home / "mnt"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.home / "tvd.log"

    def pack(self, number: int) -> Path:
        """The file of one pack."""
        return self.packs / f"{number:016x}.pack"

    def staging_directory(self, ino: int) -> Path:
        """Where the staging files of an inode lie."""
        return self.staging / f"{ino & 0xFF:02x}"

    def staged_file(self, ino: int, generation: int) -> Path:
        """The bytes of a file that is not sealed."""
        return self.staging_directory(ino) / f"{ino:016x}.{generation}"

    def staged_map(self, ino: int, generation: int) -> Path:
        """Which blocks of an overwritten sealed file are in its staging file."""
        return self.staging_directory(ino) / f"{ino:016x}.{generation}.map"
