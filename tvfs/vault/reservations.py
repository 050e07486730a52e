"""Space that was promised: the vault never grows beyond its capacity, because whoever writes asks first."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from tvfs.errors import TaskVaultError

EMERGENCY_FRACTION = 50
"""One fiftieth (2 %) of the capacity is never promised, so that deleting and committing always work."""
NAMES_FRACTION = 2
"""New names may take half of that: they cannot wait until something was evicted."""


class VaultFull(TaskVaultError):
    """The vault has no room for what was to be stored."""

    def __init__(self, wanted_bytes: int, free_bytes: int, capacity_bytes: int, filled_by: str = "") -> None:
        super().__init__(
            f"The vault has room for {size_text(max(free_bytes, 0))} of its {size_text(capacity_bytes)} and"
            f" {size_text(wanted_bytes)} were to be stored{f'; {filled_by}' if filled_by else ''}."
            " What is pinned, in use, a named snapshot or an ordinary file under work/ is not evicted: remove files"
            " (`tv rm`), unpin or remove entries (`tv cache unpin`, `tv cache rm`), then run `tv gc`;"
            " or make a larger vault with `tv init --size`."
        )
        self.wanted_bytes = wanted_bytes
        self.free_bytes = free_bytes
        self.capacity_bytes = capacity_bytes


class Reservations:
    """Bytes set aside for holders, beside what is used already.

    Changed synchronously, so that no two get the same bytes.
    """

    def __init__(
        self,
        capacity_bytes: int,
        used_bytes: Callable[[], int],
        *,
        pack_bytes: int = 0,
        filled_by: Callable[[], str] = lambda: "",
    ) -> None:
        """`pack_bytes`, the length of a pack, are kept beside the emergency fraction, for those who make room.

        `filled_by` says what takes how much, for people.
        """
        self.capacity_bytes = capacity_bytes
        self._used_bytes = used_bytes
        self._filled_by = filled_by
        self.pack_bytes = pack_bytes
        self._emergency_bytes = capacity_bytes // EMERGENCY_FRACTION
        self._reserved: dict[Hashable, int] = {}
        self._total = 0
        self._lent: dict[Hashable, int] = {}
        """By holder: how much it has of what is kept, used by now or not."""

    @property
    def reserved_bytes(self) -> int:
        """Set aside by all holders together."""
        return self._total

    @property
    def most_bytes(self) -> int:
        """What could be reserved if the vault were empty."""
        return self.capacity_bytes - self._emergency_bytes - self.pack_bytes

    @property
    def free_bytes(self) -> int:
        """What may still be reserved; negative if the vault is over its limit."""
        return self.most_bytes - self._used_bytes() - self._total + sum(self._lent.values())

    @property
    def free_with_kept_bytes(self) -> int:
        """What may still be reserved by those who make room."""
        kept_bytes = self.pack_bytes + self._emergency_bytes // NAMES_FRACTION
        return self.free_bytes + kept_bytes - sum(self._lent.values())

    def admits_names(self, size_bytes: int = 0) -> bool:
        """Whether rows that are no content, of so many bytes, may be added: names, attributes."""
        return self.free_bytes + self._emergency_bytes // NAMES_FRACTION > size_bytes

    @property
    def admits_moves(self) -> bool:
        """Whether names may change places: a quarter longer than names may be added."""
        return self.free_bytes + self._emergency_bytes * 3 // 4 > 0

    def reserve(self, holder: Hashable, size_bytes: int, *, from_kept: bool = False) -> None:
        """Set `size_bytes` aside; raise `VaultFull`, then nothing was set aside.

        `from_kept` is for those who give back more than they take, or as much, before they take again: one pack is kept
        for them.  What they have of it is as good as free for the others, until they release all that they have.
        """
        free_bytes = self.free_bytes
        lent_bytes = max(0, size_bytes - max(0, free_bytes)) if from_kept else 0
        if size_bytes > (self.free_with_kept_bytes if from_kept else free_bytes):
            raise self.full(size_bytes)
        if lent_bytes:
            self._lent[holder] = self._lent.get(holder, 0) + lent_bytes
        self._reserved[holder] = self._reserved.get(holder, 0) + size_bytes
        self._total += size_bytes

    def release(self, holder: Hashable, size_bytes: int | None = None) -> None:
        """Give back all of the holder's bytes, or as many of `size_bytes` as it has: they are used or not needed."""
        if size_bytes is None:
            self._lent.pop(holder, None)
        held = self._reserved.pop(holder, 0)
        given_back = held if size_bytes is None else min(size_bytes, held)
        self._total -= given_back
        if held > given_back:
            self._reserved[holder] = held - given_back

    def full(self, wanted_bytes: int) -> VaultFull:
        """Return the error that says what fills the vault."""
        return VaultFull(wanted_bytes, self.free_bytes, self.capacity_bytes, self._filled_by())


def size_text(size_bytes: int) -> str:
    """Return a number of bytes for people: `1.5 MiB`."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >> shift:
            return f"{size_bytes / (1 << shift):.1f} {unit}"
    return f"{size_bytes} bytes"
