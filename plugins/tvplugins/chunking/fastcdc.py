"""Content-defined chunks by FastCDC-2020: an insertion changes the chunks around it and no others.

Parameters, all part of a vault's format: `min_bytes` (default 32 KiB), `avg_bytes` (128 KiB), `max_bytes` (512 KiB) and
`seed` (0).  The mean chunk of random bytes has `min_bytes + avg_bytes`.

The rule for tails: once no more than `max_bytes / 4` of a content is left, what is left is one chunk.  So small files
are one chunk each.  The rule looks at what is left only, never at how long the content is, and so keeps the promise
that cutting restarts at every boundary.  It keeps windows exact too: a chunk that is not the last of its window was cut
with more than `max_bytes / 4` left, which is as true in the whole content, and FastCDC stops at the first byte whose
rolling hash matches, or at `max_bytes`, wherever the window ends.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from tvfs.plugin_api.buffer import Buffer
from tvplugins.parameters import read_numbers

DEFAULTS = {"min_bytes": 32 << 10, "avg_bytes": 128 << 10, "max_bytes": 512 << 10, "seed": 0}
MAX_SEED = (1 << 63) - 1
LIMITS = {"min_bytes": (64, 1 << 20), "avg_bytes": (256, 4 << 20), "max_bytes": (1024, 16 << 20), "seed": (0, MAX_SEED)}
"""What pyfastcdc accepts."""


class FastCdc:
    """Cuts with pyfastcdc's C extension; its instances must not be used by two threads at once, so each has its own."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers = dict(numbers)
        self._max_bytes = numbers["max_bytes"]
        self._tail_bytes = numbers["max_bytes"] // 4
        self._thread = threading.local()

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "fastcdc"

    @property
    def parameters(self) -> Mapping[str, int | str]:
        """All of them, as used."""
        return dict(self._numbers)

    @property
    def max_chunk_bytes(self) -> int:
        """The parameter `max_bytes`."""
        return self._max_bytes

    def cut(self, content: Buffer, /) -> list[int]:
        """Return the lengths of the chunks of `content`, in order."""
        left = len(content)
        lengths: list[int] = []
        if left > self._tail_bytes:
            chunks = iter(self._cutter().cut_buf(content))
            while left > self._tail_bytes:
                lengths.append(next(chunks).length)
                left -= lengths[-1]
        if left:
            lengths.append(left)
        return lengths

    def _cutter(self) -> Any:
        cutter = getattr(self._thread, "cutter", None)
        if cutter is None:
            cutter = self._thread.cutter = _new_cutter(self._numbers)
        return cutter


def _new_cutter(numbers: Mapping[str, int]) -> Any:
    try:
        # By its full name: `from pyfastcdc import FastCDC` falls back to Python code that is 200 times slower.
        from pyfastcdc.cy import FastCDC
    except ImportError as exc:
        raise ImportError("pyfastcdc was installed without its C extension; install its wheel.") from exc
    return FastCDC(
        numbers["avg_bytes"], min_size=numbers["min_bytes"], max_size=numbers["max_bytes"], seed=numbers["seed"]
    )


def make(parameters: Mapping[str, int | str], /) -> FastCdc:
    """Return the chunker; raise `ValueError` for parameters that FastCDC cannot keep."""
    numbers = read_numbers("fastcdc", parameters, DEFAULTS)
    for name, (least, most) in LIMITS.items():
        if not least <= numbers[name] <= most:
            raise ValueError(f"{name} of fastcdc must be from {least} to {most}, not {numbers[name]}.")
    if not numbers["min_bytes"] <= numbers["avg_bytes"] <= numbers["max_bytes"]:
        raise ValueError("fastcdc needs min_bytes <= avg_bytes <= max_bytes.")
    _new_cutter(numbers)  # a missing C extension is said when the vault is opened, not at the first file
    return FastCdc(numbers)
