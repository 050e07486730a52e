"""Staging files kept open between writes: a bounded number, and none is closed while a thread uses it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Descriptors:
    """The owner's only, except that a thread may use the descriptor it was lent by `lent`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._lent: dict[int, int] = {}
        self._closing: set[int] = set()

    def get(self, path: Path) -> int:
        """Return a descriptor that is good until the next checkpoint; raise `OSError`."""
        descriptor = self._open.get(path)
        if descriptor is not None:
            self._open.move_to_end(path)
            return descriptor
        return self._keep(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def create(self, path: Path) -> int:
        """Make the file and return a descriptor like `get`'s."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
            descriptor = os.open(path, flags, 0o600)
        return self._keep(path, descriptor)

    @contextmanager
    def lent(self, path: Path) -> Iterator[int]:
        """A descriptor that stays open until the block ends, for a thread."""
        descriptor = self.get(path)
        self._lent[descriptor] = self._lent.get(descriptor, 0) + 1
        try:
            yield descriptor
        finally:
            self._lent[descriptor] -= 1
            if not self._lent[descriptor]:
                del self._lent[descriptor]
                if descriptor in self._closing:
                    self._closing.discard(descriptor)
                    os.close(descriptor)

    def close(self, path: Path) -> None:
        """Let go of a file, now or when the last thread has given it back."""
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            self._close(descriptor)

    def close_all(self) -> None:
        """Let go of every file."""
        for path in list(self._open):
            self.close(path)

    def _keep(self, path: Path, descriptor: int) -> int:
        self._open[path] = descriptor
        if len(self._open) > self._limit:
            _, oldest = self._open.popitem(last=False)
            self._close(oldest)
        return descriptor

    def _close(self, descriptor: int) -> None:
        if descriptor in self._lent:
            self._closing.add(descriptor)
        else:
            os.close(descriptor)
