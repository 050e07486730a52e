"""What is installed: codecs by the number that records carry, and a survey of every plugin."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tvfs.errors import TaskVaultError
from tvfs.plugin_api.compression import FIRST_FOREIGN_ID, Codec
from tvfs.plugin_api.registry import BUILT_IN, CONTRACTS, Origin, PluginAmbiguous, PluginIncompatible, PluginRegistry


class InstalledCodecs(Mapping[int, Codec]):
    """Every installed codec that works, by number; imported when a number is asked for that needs it.

    Threads: may be asked from several.  A number that two codecs have raises `PluginAmbiguous`; a codec that cannot be
    loaded is as if it were not installed, and `broken` says why.
    """

    def __init__(self, registry: PluginRegistry, likely: Sequence[str] = ()) -> None:
        """`likely` names codecs to look at first, so that the others need not be imported."""
        self._registry = registry
        self._lock = threading.Lock()
        self._names: defaultdict[int, list[str]] = defaultdict(list)
        self._codecs: dict[int, Codec] = {}
        self.broken: dict[str, TaskVaultError] = {}
        """By name, of those that were looked at."""
        known = registry.names("compression")
        ours = [name for name in known if any(origin.distribution == BUILT_IN for origin in self._origins(name))]
        self._built_in = sorted(ours, key=lambda name: name not in likely)
        self._foreign = [name for name in known if name not in ours]

    def __getitem__(self, codec_id: int) -> Codec:
        with self._lock:
            if codec_id < FIRST_FOREIGN_ID:
                while codec_id not in self._codecs and self._built_in:
                    self._load(self._built_in.pop(0))
            else:
                # All of them: only so can two of one number be told.
                while self._foreign:
                    self._load(self._foreign.pop(0))
            names = self._names.get(codec_id, [])
            if len(names) > 1:
                raise PluginAmbiguous(
                    "compression", f"has the number {codec_id}", [self._described(name) for name in names]
                )
            return self._codecs[codec_id]

    def __iter__(self) -> Iterator[int]:
        with self._lock:
            for waiting in (self._built_in, self._foreign):
                while waiting:
                    self._load(waiting.pop(0))
            return iter(sorted(self._codecs))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _load(self, name: str) -> None:
        try:
            codec = self._registry.codec(name)
        except TaskVaultError as exc:
            self.broken[name] = exc
            return
        self._names[codec.codec_id].append(name)
        self._codecs[codec.codec_id] = codec

    def _origins(self, name: str) -> list[Origin]:
        return self._registry.origins("compression", name)

    def _described(self, name: str) -> str:
        origin = self._origins(name)[0]
        return f"{name!r} of {origin.distribution or 'an unknown package'}"


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """One line of the survey."""

    kind: str
    name: str
    origins: tuple[Origin, ...]
    """More than one if it is ambiguous."""
    state: str
    """`ok`, `broken`, `incompatible` or `ambiguous`."""
    reason: str
    """Why it is not ok, a sentence."""


def survey(registry: PluginRegistry) -> list[InstalledPlugin]:
    """Return every installed plugin, each tried with its default parameters; imports all of them."""
    codecs = InstalledCodecs(registry)
    list(codecs)
    return [_look_at(registry, codecs, kind, name) for kind in CONTRACTS for name in registry.names(kind)]


def _look_at(registry: PluginRegistry, codecs: InstalledCodecs, kind: str, name: str) -> InstalledPlugin:
    origins = tuple(registry.origins(kind, name))
    try:
        plugin = registry.make(kind, name)
        if kind == "compression":
            codecs[plugin.codec_id]
    except TaskVaultError as exc:
        return InstalledPlugin(kind, name, origins, _state(exc), str(exc))
    return InstalledPlugin(kind, name, origins, "ok", "")


def _state(error: TaskVaultError) -> str:
    if isinstance(error, PluginAmbiguous):
        return "ambiguous"
    return "incompatible" if isinstance(error, PluginIncompatible) else "broken"
