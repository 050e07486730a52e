"""Space that was promised: the vault never grows beyond its capacity, because whoever writes asks first."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from tvfs.errors import TaskVaultError

EMERGENCY_FRACTION = 50
"""One fiftieth (2 %) of the capacity is never promised, so that deleting and committing always work."""


class VaultFull(TaskVaultError):
    """The vault has no room for what was to be stored."""

    def __init__(self, wanted_bytes: int, free_bytes: int, capacity_bytes: int) -> None:
        super().__init__(
            f"The vault has room for {_size(max(free_bytes, 0))} of its {_size(capacity_bytes)} and"
            f" {_size(wanted_bytes)} were to be stored;"
            " store less, or make a larger vault with `tv init --size`."
        )
        self.wanted_bytes = wanted_bytes
        self.free_bytes = free_bytes
        self.capacity_bytes = capacity_bytes


class Reservations:
    """Bytes set aside for holders, beside what is used already.

    Changed synchronously, so that no two get the same bytes.
    """

    def __init__(self, capacity_bytes: int, used_bytes: Callable[[], int]) -> None:
        self._capacity_bytes = capacity_bytes
        self._used_bytes = used_bytes
        self._reserved: dict[Hashable, int] = {}
        self._total = 0

    @property
    def reserved_bytes(self) -> int:
        """Set aside by all holders together."""
        return self._total

    @property
    def free_bytes(self) -> int:
        """What may still be reserved; negative if the vault is over its limit."""
        emergency_bytes = self._capacity_bytes // EMERGENCY_FRACTION
        return self._capacity_bytes - emergency_bytes - self._used_bytes() - self._total

    def reserve(self, holder: Hashable, size_bytes: int) -> None:
        """Set `size_bytes` aside; raise `VaultFull`, then nothing was set aside."""
        free_bytes = self.free_bytes
        if size_bytes > free_bytes:
            raise VaultFull(size_bytes, free_bytes, self._capacity_bytes)
        self._reserved[holder] = self._reserved.get(holder, 0) + size_bytes
        self._total += size_bytes

    def release(self, holder: Hashable, size_bytes: int | None = None) -> None:
        """Give back all of the holder's bytes, or as many of `size_bytes` as it has: they are used or not needed."""
        held = self._reserved.pop(holder, 0)
        given_back = held if size_bytes is None else min(size_bytes, held)
        self._total -= given_back
        if held > given_back:
            self._reserved[holder] = held - given_back


def _size(size_bytes: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >> shift:
            return f"{size_bytes / (1 << shift):.1f} {unit}"
    return f"{size_bytes} bytes"
