"""The content of files as hashes, each file read once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from taskvault.run.digest_table import Identity
from taskvault.run.inputs import InputsUnusable
from taskvault.run.memory import Memory, identity_of
from tvfs.plugin_api import HashFunction

_BLOCK_BYTES = 1 << 20
_CHANGING_LINES = re.compile(rb"(?m)^(?:cpu MHz|bogomips|BogoMIPS)\b.*\n?")
_CPU = b"/proc/cpuinfo"


Told = Callable[[bytes, os.stat_result], bytes | None]
"""Returns the hash of a file's content if somebody knows it who knows of every change; see `MountedDigests`."""


class Digests:
    """Hashes of files by path, as long as they are the same files, unchanged."""

    def __init__(self, hash_function: HashFunction, memory: Memory | None = None, told: Told | None = None) -> None:
        """`memory` is what outlives this look, and what earlier ones knew; `told` is asked before a file is read."""
        self._hash_function = hash_function
        self._memory = memory or Memory()
        self._known: dict[Identity, bytes] = {}
        self._told = told

    def __call__(self, place: bytes, status: os.stat_result) -> bytes:
        """Return the hash of a file's content; raise `OSError`, or `InputsUnusable` if it is being changed."""
        identity = identity_of(status)
        known = self._known.get(identity) or self._memory.digest(identity)
        if known is None:
            asked = None if self._told is None else self._told(place, status)
            if asked is not None:
                self._known[identity] = asked
                return asked
            looked_ns = self._memory.now_ns()
            known = self._known[identity] = self._read(place, identity)
            if self._memory.is_steady(place, status, looked_ns):
                self._memory.keep_digest(identity, known)
        return known

    def _read(self, place: bytes, identity: Identity) -> bytes:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            digest = self._hash(place, descriptor)
            if identity_of(os.fstat(descriptor)) != identity and not place.startswith((b"/proc/", b"/sys/")):
                raise InputsUnusable(f"the input {os.fsdecode(place)} changed while it was read")
        finally:
            os.close(descriptor)
        return digest

    def _hash(self, place: bytes, descriptor: int) -> bytes:
        block = os.read(descriptor, _BLOCK_BYTES)
        if place == _CPU:
            # What the processor is counts; how fast it runs at the moment does not.
            block = _CHANGING_LINES.sub(b"", block)
        if len(block) == os.fstat(descriptor).st_size < _BLOCK_BYTES and not place.startswith((b"/proc/", b"/sys/")):
            return self._hash_function.digest(block)
        hasher = self._hash_function.hasher()
        while block:
            hasher.update(block)
            block = os.read(descriptor, _BLOCK_BYTES)
        return hasher.digest()
