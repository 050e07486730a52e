"""The boundary between us and a plugin: what it promised is checked, and what it does wrong becomes one sentence.

Every plugin is looked over when it is made.  Those of other distributions are checked at every call besides, and called
with a deadline (`DeadlineCaller`); the built-in ones are ours, keep the contract by test, and are called directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tvfs.errors import TaskVaultError
from tvfs.plugin_api.buffer import Buffer
from tvfs.plugin_api.chunking import Chunker
from tvfs.plugin_api.compression import BatchCodec, Codec, CodecFailed
from tvfs.plugin_api.deadline import CallOverdue, DeadlineCaller
from tvfs.plugin_api.eviction import EntryFacts, EvictionPolicy
from tvfs.plugin_api.hash import Hasher, HashFunction
from tvfs.plugin_api.tracer import Tracer

HASH_BYTES = 32
MAX_CHUNK_BYTES = 16 << 20
PROBE = b"TaskVault asks a plugin to show what it does with these bytes. " * 4
"""What every plugin is tried with when it is made."""


class PluginMisbehaved(TaskVaultError):
    """A plugin raised what it may not raise, or returned what it may not return; nothing that it returned was used."""

    def __init__(self, kind: str, name: str, what: str, remedy: str = "update it or choose another") -> None:
        super().__init__(f"The {kind} plugin {name!r} broke its contract: {what}; {remedy}.")
        self.kind = kind
        self.name = name
        self.what = what


class PluginHung(PluginMisbehaved):
    """A plugin did not come back from a call in time."""

    def __init__(self, kind: str, name: str, what: str) -> None:
        super().__init__(kind, name, what, "update it or choose another, and start the daemon again")


@dataclass(frozen=True, slots=True)
class Boundary:
    """The way into one plugin."""

    kind: str
    name: str
    caller: DeadlineCaller | None = field(default=None)
    """None: called directly."""

    def call(self, function: Callable[..., Any], *arguments: Any, content_bytes: int = 0) -> Any:
        """Return what the plugin returns; raise `CodecFailed` as it does, else `PluginMisbehaved` or `PluginHung`."""
        try:
            if self.caller is None:
                return function(*arguments)
            return self.caller(function, *arguments, content_bytes=content_bytes)
        except CallOverdue as exc:
            raise PluginHung(self.kind, self.name, str(exc)) from None
        except (CodecFailed, MemoryError, PluginMisbehaved) as exc:
            if isinstance(exc, CodecFailed) and self.kind != "compression":
                self.refuse(f"it raised {said(exc)}")
            raise
        except BaseException as exc:  # it is the plugin's fault, whatever it is, and SystemExit must not end us
            if self.caller is None and not isinstance(exc, Exception):
                raise
            raise PluginMisbehaved(self.kind, self.name, f"it raised {said(exc)}") from exc

    def refuse(self, what: str) -> NoReturn:
        """Raise `PluginMisbehaved`."""
        raise PluginMisbehaved(self.kind, self.name, what)

    def bytes_of(self, returned: object, length: int | None, function: str) -> bytes:
        """Return what a function returned if it is bytes, of this length unless None; raise `PluginMisbehaved`."""
        if not isinstance(returned, bytes):
            self.refuse(f"{function} returned {type(returned).__name__} instead of bytes")
        if length is not None and len(returned) != length:
            self.refuse(f"{function} returned {len(returned)} bytes instead of {length}")
        return returned


def said(error: BaseException) -> str:
    """Return type and text of what a plugin raised."""
    return f"{type(error).__name__} ({text_of(error)})"


def text_of(error: BaseException) -> str:
    """Return the text of what a plugin raised, which is the plugin's code too: it may raise, or be a book."""
    try:
        return str(error)[:_MOST_SAID]
    except BaseException:  # noqa: BLE001 - whatever it is, it is the plugin's
        return "it cannot say what"


def shown(value: object) -> str:
    """Return what a plugin's value looks like, in a sentence."""
    try:
        return repr(value)[:_MOST_SAID]
    except BaseException:  # noqa: BLE001 - whatever it is, it is the plugin's
        return f"some {type(value).__name__}"


_MOST_SAID = 500


# --- looked over when they are made ----------------------------------------------------------------------------------


def guard_hash(plugin: Any, boundary: Boundary) -> HashFunction:
    """Return a hash function that was looked over; raise `PluginMisbehaved`."""
    _check_members(plugin, boundary, methods=("digest", "hasher"))
    guarded = GuardedHash(plugin, boundary)
    whole = guarded.digest(PROBE)
    hasher = guarded.hasher()
    hasher.update(PROBE[:10])
    hasher.update(PROBE[10:])
    if hasher.digest() != whole:
        boundary.refuse("the hash of the pieces is not the hash of the whole")
    checked: HashFunction = plugin
    return checked if boundary.caller is None else guarded


def guard_codec(plugin: Any, boundary: Boundary) -> Codec:
    """Return a codec that was looked over; raise `PluginMisbehaved`."""
    _check_members(plugin, boundary, methods=("compress", "decompress"))
    codec_id = boundary.call(lambda: plugin.codec_id)
    if type(codec_id) is not int or not 0 <= codec_id <= 255:
        boundary.refuse(f"its codec_id is {shown(codec_id)} instead of a number from 0 to 255")
    batched = isinstance(plugin, BatchCodec)
    guarded = GuardedBatchCodec(plugin, codec_id, boundary) if batched else GuardedCodec(plugin, codec_id, boundary)
    try:
        if guarded.decompress(guarded.compress(PROBE), len(PROBE)) != PROBE:
            boundary.refuse("what it compressed did not come back the same")
    except CodecFailed as exc:
        boundary.refuse(f"it cannot read what it compressed: it raised {said(exc)}")
    checked: Codec = plugin
    return checked if boundary.caller is None else guarded


def guard_chunker(plugin: Any, boundary: Boundary) -> Chunker:
    """Return a chunker that was looked over; raise `PluginMisbehaved`."""
    _check_members(plugin, boundary, methods=("cut",))
    most = boundary.call(lambda: plugin.max_chunk_bytes)
    if type(most) is not int or not 0 < most <= MAX_CHUNK_BYTES:
        boundary.refuse(f"its max_chunk_bytes is {shown(most)} instead of a number from 1 to {MAX_CHUNK_BYTES}")
    parameters = boundary.call(lambda: dict(plugin.parameters))
    if not all(type(name) is str and type(value) in (int, str) for name, value in parameters.items()):
        boundary.refuse(f"its parameters are {shown(parameters)} instead of names with whole numbers or texts")
    guarded = GuardedChunker(plugin, parameters, most, boundary)
    guarded.cut(PROBE)
    checked: Chunker = plugin
    return checked if boundary.caller is None else guarded


def guard_eviction(plugin: Any, boundary: Boundary) -> EvictionPolicy:
    """Return an eviction policy that was looked over; raise `PluginMisbehaved`."""
    _check_members(plugin, boundary, methods=("rank", "spare"))
    guarded = GuardedEviction(plugin, boundary)
    if not math.isfinite(guarded.rank(_PROBE_ENTRY, 0.0)):
        boundary.refuse("rank() did not return a finite number")
    checked: EvictionPolicy = plugin
    return checked if boundary.caller is None else guarded


def guard_tracer(plugin: Any, boundary: Boundary) -> Tracer:
    """Return a tracer that was looked over; raise `PluginMisbehaved`.  What it observes can only be believed."""
    _check_members(plugin, boundary, methods=("trouble", "start"))
    checked: Tracer = plugin
    return checked


_PROBE_ENTRY = EntryFacts(
    now_ns=2 * 10**18,
    scope="main",
    kind="saved",
    size_bytes=1 << 20,
    share_bytes=1 << 19,
    cost_ns=10**9,
    created_ns=10**18,
    used_ns=10**18,
    uses=1,
    uses_since=1,
    expires_ns=0,
    rank=None,
)


def _check_members(plugin: Any, boundary: Boundary, methods: Sequence[str]) -> None:
    for method in methods:
        if not callable(boundary.call(getattr, plugin, method, None)):
            boundary.refuse(f"it has no method {method}()")
    name = boundary.call(getattr, plugin, "name", None)
    if type(name) is not str or name != boundary.name:
        boundary.refuse(f"its name is {shown(name)}, not that of its entry point")


# --- checked at every call -------------------------------------------------------------------------------------------


class GuardedHash:
    """A foreign hash function."""

    def __init__(self, plugin: HashFunction, boundary: Boundary) -> None:
        self._plugin = plugin
        self._boundary = boundary

    @property
    def name(self) -> str:
        """The entry-point name."""
        return self._boundary.name

    def digest(self, content: Buffer, /) -> bytes:
        """Return the hash; raise `PluginMisbehaved` if it is not 32 bytes."""
        found = self._boundary.call(self._plugin.digest, content, content_bytes=len(content))
        return self._boundary.bytes_of(found, HASH_BYTES, "digest()")

    def hasher(self) -> Hasher:
        """Start a hash that is computed piece by piece."""
        hasher = self._boundary.call(self._plugin.hasher)
        if not callable(getattr(hasher, "update", None)) or not callable(getattr(hasher, "digest", None)):
            self._boundary.refuse("hasher() returned something without update() and digest()")
        return _GuardedHasher(hasher, self._boundary)


class _GuardedHasher:
    def __init__(self, hasher: Hasher, boundary: Boundary) -> None:
        self._hasher = hasher
        self._boundary = boundary

    def update(self, content: Buffer, /) -> None:
        """Take in the next bytes."""
        self._boundary.call(self._hasher.update, content, content_bytes=len(content))

    def digest(self) -> bytes:
        """Return the hash; raise `PluginMisbehaved` if it is not 32 bytes."""
        return self._boundary.bytes_of(self._boundary.call(self._hasher.digest), HASH_BYTES, "hasher().digest()")


class GuardedCodec:
    """A foreign codec."""

    def __init__(self, plugin: Codec, codec_id: int, boundary: Boundary) -> None:
        self._plugin = plugin
        self._codec_id = codec_id
        self._boundary = boundary

    @property
    def name(self) -> str:
        """The entry-point name."""
        return self._boundary.name

    @property
    def codec_id(self) -> int:
        """The number stored in records, as it was when the codec was made."""
        return self._codec_id

    def compress(self, chunk: Buffer, /) -> bytes:
        """Return the payload; raise `PluginMisbehaved` if it is not bytes."""
        try:
            payload = self._boundary.call(self._plugin.compress, chunk, content_bytes=len(chunk))
        except CodecFailed as exc:
            self._boundary.refuse(f"compress() raised {said(exc)}")
        return self._boundary.bytes_of(payload, None, "compress()")

    def decompress(self, payload: Buffer, raw_bytes: int, /) -> bytes:
        """Return the chunk; raise `CodecFailed`, or `PluginMisbehaved` if it does not have `raw_bytes` bytes."""
        found = self._boundary.call(self._plugin.decompress, payload, raw_bytes, content_bytes=raw_bytes)
        return self._boundary.bytes_of(found, raw_bytes, "decompress()")


class GuardedBatchCodec(GuardedCodec):
    """A foreign codec that also offers `compress_many`."""

    def compress_many(self, chunks: Sequence[Buffer], /) -> list[bytes]:
        """Return a payload for each chunk; raise `PluginMisbehaved` if it is anything else."""
        plugin: Any = self._plugin
        total = sum(len(chunk) for chunk in chunks)
        payloads = self._boundary.call(plugin.compress_many, chunks, content_bytes=total)
        if not isinstance(payloads, list) or len(payloads) != len(chunks):
            self._boundary.refuse(f"compress_many() did not return a list of {len(chunks)} payloads")
        return [self._boundary.bytes_of(payload, None, "compress_many()") for payload in payloads]


class GuardedChunker:
    """A foreign chunker."""

    def __init__(
        self, plugin: Chunker, parameters: Mapping[str, int | str], max_chunk_bytes: int, boundary: Boundary
    ) -> None:
        self._plugin = plugin
        self._parameters = parameters
        self._max_chunk_bytes = max_chunk_bytes
        self._boundary = boundary

    @property
    def name(self) -> str:
        """The entry-point name."""
        return self._boundary.name

    @property
    def parameters(self) -> Mapping[str, int | str]:
        """What it was made with, defaults included."""
        return self._parameters

    @property
    def max_chunk_bytes(self) -> int:
        """No chunk is longer."""
        return self._max_chunk_bytes

    def cut(self, content: Buffer, /) -> list[int]:
        """Return the lengths; raise `PluginMisbehaved` unless they are whole numbers that cover the content."""
        lengths = self._boundary.call(self._plugin.cut, content, content_bytes=len(content))
        if not isinstance(lengths, list) or not all(type(length) is int for length in lengths):
            self._boundary.refuse("cut() did not return a list of whole numbers")
        if sum(lengths) != len(content):
            self._boundary.refuse(f"the chunks that cut() returned have {sum(lengths)} bytes instead of {len(content)}")
        if lengths and not 0 < min(lengths) <= max(lengths) <= self._max_chunk_bytes:
            self._boundary.refuse(f"cut() returned a chunk of {min(lengths)} or of {max(lengths)} bytes")
        return lengths


class GuardedEviction:
    """A foreign eviction policy; whether its numbers are finite is for whoever asked, who has an answer of its own."""

    def __init__(self, plugin: EvictionPolicy, boundary: Boundary) -> None:
        self._plugin = plugin
        self._boundary = boundary

    @property
    def name(self) -> str:
        """The entry-point name."""
        return self._boundary.name

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        """Return the rank; raise `PluginMisbehaved` if it is no number."""
        return self._number(self._boundary.call(self._plugin.rank, entry, aging), "rank()")

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        """Return a new rank or None; raise `PluginMisbehaved` if it is anything else."""
        rank = self._boundary.call(self._plugin.spare, entry, aging)
        return None if rank is None else self._number(rank, "spare()")

    def _number(self, returned: object, function: str) -> float:
        if type(returned) not in (int, float):
            self._boundary.refuse(f"{function} returned {type(returned).__name__} instead of a number")
        number: Any = returned
        try:
            return float(number)
        except OverflowError:
            self._boundary.refuse(f"{function} returned a number that is too large")
