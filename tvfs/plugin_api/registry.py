"""Finds plugins by entry point: the built-in ones through the same door as anyone else's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tvfs.errors import TaskVaultError
from tvfs.plugin_api.chunking import Chunker
from tvfs.plugin_api.compression import Codec
from tvfs.plugin_api.hash import HashFunction

KINDS = ("hash", "compression", "chunking")
"""Plugin kinds; the entry-point group of a kind is `taskvault.<kind>`."""


class PluginUnknown(TaskVaultError):
    """No installed plugin has the name that the vault or its configuration asks for."""

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        super().__init__(
            f"No {kind} plugin is called {name!r} (installed: {', '.join(known) or 'none'});"
            " install the package that has it."
        )
        self.kind = kind
        self.name = name


class PluginBroken(TaskVaultError):
    """An installed plugin could not be loaded or refused its parameters."""

    def __init__(self, kind: str, name: str, reason: str) -> None:
        super().__init__(f"The {kind} plugin {name!r} does not work: {reason}; reinstall it or choose another.")
        self.kind = kind
        self.name = name


class PluginRegistry:
    """The plugins that are installed; each is imported when it is first asked for."""

    def __init__(self, find: Callable[[str], list[EntryPoint]] | None = None) -> None:
        self._find = find or _installed

    def hash_function(self, name: str, parameters: Mapping[str, int | str] | None = None) -> HashFunction:
        """Return a hash function; raise `PluginUnknown` or `PluginBroken`."""
        made: HashFunction = self._make("hash", name, parameters)
        return made

    def codec(self, name: str, parameters: Mapping[str, int | str] | None = None) -> Codec:
        """Return a compression codec; raise `PluginUnknown` or `PluginBroken`."""
        made: Codec = self._make("compression", name, parameters)
        return made

    def chunker(self, name: str, parameters: Mapping[str, int | str] | None = None) -> Chunker:
        """Return a chunker; raise `PluginUnknown` or `PluginBroken`."""
        made: Chunker = self._make("chunking", name, parameters)
        return made

    def names(self, kind: str) -> list[str]:
        """The names of the installed plugins of a kind, sorted."""
        return sorted({point.name for point in self._find(kind)})

    def codecs(self) -> dict[int, Codec]:
        """Every installed codec by the number that records carry; for reading what any of them wrote."""
        found = (self.codec(name) for name in self.names("compression"))
        return {codec.codec_id: codec for codec in found}

    def _make(self, kind: str, name: str, parameters: Mapping[str, int | str] | None) -> Any:
        points = [point for point in self._find(kind) if point.name == name]
        if not points:
            raise PluginUnknown(kind, name, self.names(kind))
        try:
            return points[0].load()(parameters or {})
        except Exception as exc:  # whatever a plugin raises is the plugin's fault, and its name must be said
            raise PluginBroken(kind, name, f"{type(exc).__name__}: {exc}") from exc


def _installed(kind: str) -> list[EntryPoint]:
    return list(entry_points(group=f"taskvault.{kind}"))
