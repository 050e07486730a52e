"""What is fixed when a vault is made; docs/design/on-disk-format.md §4."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tvfs.errors import FormatTooNew, TaskVaultError

FORMAT = 1
"""The format version that this program writes, and the highest that it reads."""

KEY = b"superblock"
"""Row of family `sys`."""

MIN_CAPACITY_BYTES = 16 << 20
"""Below this the catalog's own files and one pack would leave no room for content."""

MAX_PACK_BYTES = 64 << 20
MAX_WAL_BYTES = 64 << 20


class SuperblockInvalid(TaskVaultError):
    """The row that says what the vault is cannot be read."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The vault's superblock cannot be read ({reason}); repair it with `tv fsck`, or restore it from a copy."
        )


class SettingsInvalid(TaskVaultError):
    """A vault cannot be made with these settings."""


class Chunking(msgspec.Struct, frozen=True):
    """Which chunker, with which parameters: the same bytes must be cut at the same places for ever."""

    name: str
    parameters: dict[str, int | str] = {}


class Superblock(msgspec.Struct, frozen=True):
    """Written once, in the first batch of the vault; other settings given later do not change it."""

    format: int
    uuid: bytes
    """16 bytes; also in the header of every pack."""
    hash: str
    """Name of the hash function."""
    chunking: Chunking
    compression: str
    """Name of the codec for new chunks; every installed codec can be read."""
    capacity_bytes: int
    created_ns: int
    compression_parameters: dict[str, int | str] = {}
    """For new chunks; reading needs none."""

    @property
    def pack_max_bytes(self) -> int:
        """A pack is full at this length."""
        return min(MAX_PACK_BYTES, self.capacity_bytes // 16)

    @property
    def max_wal_bytes(self) -> int:
        """The catalog's log is cut at this length: it counts as used."""
        return min(MAX_WAL_BYTES, self.capacity_bytes // 16)

    @property
    def uuid_text(self) -> str:
        """The uuid as people see it: 32 hexadecimal digits."""
        return self.uuid.hex()


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """What a vault is made with."""

    hash: str = "blake3"
    chunking: str = "fastcdc"
    chunking_parameters: dict[str, int | str] = field(default_factory=dict)
    compression: str = "zstd"
    capacity_bytes: int = 50 << 30
    """What everything below HOME together may take on the disk."""
    compression_parameters: dict[str, int | str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `SettingsInvalid` for a size that cannot work."""
        if self.capacity_bytes < MIN_CAPACITY_BYTES:
            raise SettingsInvalid(
                f"A vault of {self.capacity_bytes} bytes is too small; give it at least"
                f" {MIN_CAPACITY_BYTES >> 20} MiB with --size."
            )


class _AnyFormat(msgspec.Struct):
    format: int


def encode_superblock(superblock: Superblock) -> bytes:
    """Return the row's value."""
    return msgspec.msgpack.encode(superblock)


def decode_superblock(row: bytes | None) -> Superblock:
    """Return what the row says; raise `FormatTooNew` or `SuperblockInvalid`."""
    if row is None:
        raise SuperblockInvalid("it is missing")
    found = _decode(row, _AnyFormat)
    if found.format > FORMAT:
        raise FormatTooNew("The vault", found.format, FORMAT)
    superblock: Superblock = _decode(row, Superblock)
    if len(superblock.uuid) != 16:
        raise SuperblockInvalid("its uuid is not 16 bytes long")
    return superblock


def _decode(row: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(row, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise SuperblockInvalid(str(exc)) from exc
