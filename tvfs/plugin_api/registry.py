"""Finds plugins by entry point: the built-in ones through the same door as anyone else's.

Nothing of a plugin is imported until it is asked for by name; what is installed is read from metadata, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tvfs.errors import TaskVaultError
from tvfs.plugin_api import chunking, compression, eviction, tracer
from tvfs.plugin_api import hash as hash_contract
from tvfs.plugin_api.chunking import Chunker
from tvfs.plugin_api.compression import Codec, CodecFailed
from tvfs.plugin_api.deadline import DEADLINE_S, DeadlineCaller
from tvfs.plugin_api.eviction import EvictionPolicy
from tvfs.plugin_api.guard import (
    Boundary,
    PluginMisbehaved,
    guard_chunker,
    guard_codec,
    guard_eviction,
    guard_hash,
    guard_tracer,
    said,
    shown,
    text_of,
)
from tvfs.plugin_api.hash import HashFunction
from tvfs.plugin_api.prints import prints_go_to_stderr
from tvfs.plugin_api.tracer import Tracer

BUILT_IN = "taskvault"
"""The distribution whose plugins are ours."""

EVICTION_DEADLINE_S = 1.0
"""Policies are asked in the owner's event loop, which nothing else moves meanwhile."""

Parameters = Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Contract:
    """What the registry must know of one kind of plugin."""

    api_version: int
    guard: Callable[[Any, Boundary], Any]
    """Looks a plugin over and returns it, or a wrapper; raises `PluginMisbehaved`."""
    deadline_s: float = math.inf
    """One call never has more than this, whatever is configured."""


CONTRACTS: dict[str, Contract] = {
    "hash": Contract(hash_contract.API_VERSION, guard_hash),
    "compression": Contract(compression.API_VERSION, guard_codec),
    "chunking": Contract(chunking.API_VERSION, guard_chunker),
    "eviction": Contract(eviction.API_VERSION, guard_eviction, deadline_s=EVICTION_DEADLINE_S),
    "tracer": Contract(tracer.API_VERSION, guard_tracer),
}
"""By kind; the entry-point group of a kind is `taskvault.<kind>`."""

KINDS = tuple(CONTRACTS)


class PluginUnknown(TaskVaultError):
    """No installed plugin has the name that the vault or its configuration asks for."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.known = sorted(known)
        super().__init__(
            f"No {kind} plugin is called {name!r} (installed: {', '.join(self.known) or 'none'});"
            " install the package that has it with `pip install`, or choose another."
        )
        self.kind = kind
        self.name = name


class PluginAmbiguous(TaskVaultError):
    """Two distributions have a plugin of the same kind and name, or codecs of the same number."""

    def __init__(self, kind: str, what: str, distributions: Iterable[str]) -> None:
        self.distributions = sorted(distributions)
        super().__init__(
            f"More than one {kind} plugin {what}: it comes with {' and with '.join(self.distributions)};"
            " uninstall all but one with `pip uninstall`."
        )
        self.kind = kind


class PluginBroken(TaskVaultError):
    """An installed plugin could not be loaded, refused its parameters, or is not what its contract says."""

    def __init__(self, kind: str, name: str, reason: str, distribution: str | None = None) -> None:
        of = f" of {distribution}" if distribution else ""
        super().__init__(f"The {kind} plugin {name!r}{of} does not work: {reason}; reinstall it or choose another.")
        self.kind = kind
        self.name = name
        self.reason = reason


class PluginIncompatible(PluginBroken):
    """An installed plugin was written for another version of its contract."""

    def __init__(self, kind: str, name: str, declared: object, distribution: str | None) -> None:
        ours = CONTRACTS[kind].api_version
        newer = "taskvault" if isinstance(declared, int) and declared > ours else distribution or "its package"
        super().__init__(
            kind,
            name,
            f"it was written for version {shown(declared)} of the contract and this TaskVault has version {ours}:"
            f" `pip install --upgrade {newer}`",
            distribution,
        )
        self.declared = declared


@dataclass(frozen=True, slots=True)
class Origin:
    """Which installed distribution a plugin comes with."""

    distribution: str | None
    """None if the metadata does not say."""
    version: str | None


class PluginRegistry:
    """The plugins that are installed; each is imported when it is first asked for."""

    def __init__(
        self, find: Callable[[str], list[EntryPoint]] | None = None, *, deadline_s: float = DEADLINE_S
    ) -> None:
        """`deadline_s` bounds each call of a plugin that is not built in, beside the time that its bytes need."""
        self._find = find or _Installed()
        self._deadline_s = deadline_s
        self._origins: dict[int, tuple[EntryPoint, Origin]] = {}
        """By identity: two distributions may have entry points that are equal."""

    def hash_function(self, name: str, parameters: Parameters | None = None) -> HashFunction:
        """Return a hash function; raise `PluginUnknown`, `PluginAmbiguous` or `PluginBroken`."""
        made: HashFunction = self.make("hash", name, parameters)
        return made

    def codec(self, name: str, parameters: Parameters | None = None) -> Codec:
        """Return a compression codec; raise `PluginUnknown`, `PluginAmbiguous` or `PluginBroken`."""
        made: Codec = self.make("compression", name, parameters)
        return made

    def chunker(self, name: str, parameters: Parameters | None = None) -> Chunker:
        """Return a chunker; raise `PluginUnknown`, `PluginAmbiguous` or `PluginBroken`."""
        made: Chunker = self.make("chunking", name, parameters)
        return made

    def eviction(self, name: str, parameters: Parameters | None = None) -> EvictionPolicy:
        """Return an eviction policy; raise `PluginUnknown`, `PluginAmbiguous` or `PluginBroken`."""
        made: EvictionPolicy = self.make("eviction", name, parameters)
        return made

    def tracer(self, name: str, parameters: Parameters | None = None) -> Tracer:
        """Return a tracer; raise `PluginUnknown`, `PluginAmbiguous` or `PluginBroken`."""
        made: Tracer = self.make("tracer", name, parameters)
        return made

    def codecs(self, likely: Iterable[str] = ()) -> Mapping[int, Codec]:
        """Every installed codec that works, by the number that records carry; see `InstalledCodecs`."""
        from tvfs.plugin_api.installed import InstalledCodecs  # which stands on this module

        return InstalledCodecs(self, tuple(likely))

    def names(self, kind: str) -> list[str]:
        """The names of the installed plugins of a kind, sorted; nothing is imported."""
        return sorted({point.name for point in self._find(kind)})

    def origins(self, kind: str, name: str) -> list[Origin]:
        """The distributions that have a plugin of this name; more than one makes it unusable.  Nothing is imported."""
        return [self._origin(point) for point in self._points(kind, name)]

    def make(self, kind: str, name: str, parameters: Parameters | None = None) -> Any:
        """Return a plugin of any kind, looked over, behind its boundary; raise as the methods above do."""
        points = self._points(kind, name)
        if not points:
            raise PluginUnknown(kind, name, self.names(kind))
        if len(points) > 1:
            raise PluginAmbiguous(kind, f"is called {name!r}", map(_described, points))
        origin = self._origin(points[0])
        foreign = origin.distribution != BUILT_IN
        boundary = Boundary(
            kind, name, DeadlineCaller(min(self._deadline_s, CONTRACTS[kind].deadline_s)) if foreign else None
        )
        try:
            with prints_go_to_stderr() if foreign else nullcontext():
                made = self._made(points[0], boundary, parameters or {})
                guarded = CONTRACTS[kind].guard(made, boundary)
        except PluginMisbehaved as exc:
            raise PluginBroken(kind, name, exc.what, _described(points[0])) from exc
        except CodecFailed as exc:
            raise PluginBroken(kind, name, f"it raised {said(exc)}", _described(points[0])) from exc
        if kind == "compression" and foreign:
            _check_foreign_number(guarded, points[0])
        return guarded

    def _origin(self, point: EntryPoint) -> Origin:
        # Each look parses the distribution's metadata anew.
        found = self._origins.get(id(point))
        if found is None:
            found = self._origins[id(point)] = point, _origin(point)
        return found[1]

    def _points(self, kind: str, name: str) -> list[EntryPoint]:
        return [point for point in self._find(kind) if point.name == name]

    def _made(self, point: EntryPoint, boundary: Boundary, parameters: Parameters) -> Any:
        factory = boundary.call(point.load)
        self._check_version(factory, boundary, point)
        if not callable(factory):
            boundary.refuse(f"{point.value} is not callable, so it cannot make a plugin")
        try:
            made = boundary.call(factory, dict(parameters))
        except PluginMisbehaved as exc:
            if isinstance(exc.__cause__, ValueError):
                boundary.refuse(f"it refuses its parameters ({text_of(exc.__cause__).rstrip('.')})")
            raise
        self._check_version(made, boundary, point)
        return made

    def _check_version(self, found: object, boundary: Boundary, point: EntryPoint) -> None:
        kind = boundary.kind
        declared = boundary.call(getattr, found, "api_version", None)
        ours = CONTRACTS[kind].api_version
        if declared is not None and (type(declared) is not int or declared != ours):
            raise PluginIncompatible(kind, boundary.name, declared, _origin(point).distribution)


class _Installed:
    """The entry points of this environment, read from metadata when first asked for."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[EntryPoint]] | None = None

    def __call__(self, kind: str) -> list[EntryPoint]:
        if self._by_kind is None:
            found = entry_points()
            self._by_kind = {kind: list(found.select(group=f"taskvault.{kind}")) for kind in CONTRACTS}
        return self._by_kind.get(kind, [])


def _origin(point: EntryPoint) -> Origin:
    found = getattr(point, "dist", None)
    return Origin(None, None) if found is None else Origin(found.name, found.version)


def _described(point: EntryPoint) -> str:
    origin = _origin(point)
    return point.value if origin.distribution is None else f"{origin.distribution} {origin.version}"


def _check_foreign_number(codec: Codec, point: EntryPoint) -> None:
    if codec.codec_id < compression.FIRST_FOREIGN_ID:
        raise PluginBroken(
            "compression",
            point.name,
            f"its codec_id is {codec.codec_id}, and numbers below {compression.FIRST_FOREIGN_ID} are for built-in ones",
            _described(point),
        )
