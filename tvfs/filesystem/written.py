"""Which files were open for writing since the kernel knows the mount."""

from __future__ import annotations

MOST = 100_000
"""Numbers that are kept; of more it is as if all had been."""


class Written:
    """Of these the kernel may hold bytes that we do not have: it keeps what it could not write, and shows it."""

    def __init__(self) -> None:
        self._known: set[int] | None = set()

    def __contains__(self, ino: int) -> bool:
        return self._known is None or ino in self._known

    def add(self, ino: int) -> None:
        """Take in that a file is opened for writing."""
        if self._known is not None:
            self._known.add(ino)
            if len(self._known) > MOST:
                self._known = None

    def add_all(self) -> None:
        """Take in that another daemon served the mount, and nobody knows which."""
        self._known = None
