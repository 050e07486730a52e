"""Which paths below a directory are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Selection:
    """Wanted paths with everything below them, less the excluded ones with everything below those."""

    def __init__(self, paths: Sequence[bytes] | None, excluded: Sequence[bytes]) -> None:
        """Paths are relative, without '.' or '..'; None wants everything."""
        self._wanted = None if paths is None else {_normal(path) for path in paths}
        if self._wanted is not None and b"" in self._wanted:
            self._wanted = None
        self._above_wanted = _above(self._wanted or ())
        self._excluded = {_normal(path) for path in excluded}
        self._above_excluded = _above(self._excluded)
        self._unseen = set(self._wanted or ())

    @property
    def whole(self) -> bool:
        """Whether everything is wanted that is not excluded."""
        return self._wanted is None

    def takes(self, path: bytes, *, whole: bool) -> bool:
        """Whether a path is wanted, or leads to one that is; `whole`: its directory is wanted with all in it."""
        if path in self._excluded:
            self._unseen.discard(path)
            return False
        if self._wanted is not None and path in self._wanted:
            self._unseen.discard(path)
            return True
        return whole or path in self._above_wanted

    def takes_all(self, path: bytes) -> bool:
        """Whether a directory is wanted with all in it."""
        return self._wanted is None or path in self._wanted

    def excludes_below(self, path: bytes) -> bool:
        """Whether something below a directory is excluded."""
        return path in self._above_excluded if path else bool(self._excluded)

    def missing(self) -> bytes | None:
        """Return a wanted path that was not met, or None."""
        # A path below another wanted one is met there or not at all; both are asked for, so both must be there.
        return min(self._unseen, default=None)


def _normal(path: bytes) -> bytes:
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _above(paths: Iterable[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for path in paths:
        parts = path.split(b"/")
        found.update(b"/".join(parts[:count]) for count in range(1, len(parts)))
    return found
