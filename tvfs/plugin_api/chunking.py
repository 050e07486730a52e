"""Contract of a chunker: where contents are cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tvfs.plugin_api.buffer import Buffer

API_VERSION = 1
"""Of this contract. A plugin may declare the one it was written for as `api_version`, on factory or plugin."""


class Chunker(Protocol):
    """Cuts a content into chunks at places that depend only on the content and the parameters.

    Threads: `cut` is called from several threads at once.
    Persistence: name and parameters are in the superblock; the same bytes must be cut at the same places for ever, or
    deduplication is lost (never data).
    """

    @property
    def name(self) -> str:
        """The entry-point name."""
        ...

    @property
    def parameters(self) -> Mapping[str, int | str]:
        """Everything that decides where it cuts, defaults included: what a vault stores when it is made.

        The factory, given these, makes the same chunker, also in a later version with other defaults.
        """
        ...

    @property
    def max_chunk_bytes(self) -> int:
        """No chunk is longer; at most 16 MiB."""
        ...

    def cut(self, content: Buffer, /) -> list[int]:
        """Return the lengths of the chunks of `content`, in order; their sum is its length, none is 0.

        Cutting restarts at every boundary: the chunks of `content[sum(first n lengths):]` are the remaining lengths.
        So a caller may feed a long content in windows and carry the last, unfinished chunk over to the next window.
        """
        ...


class ChunkerFactory(Protocol):
    """What the entry point names."""

    def __call__(self, parameters: Mapping[str, int | str], /) -> Chunker:
        """Return the chunker; raise `ValueError` for parameters it does not know or cannot keep."""
        ...
