"""Arguments, variables and paths as text: messages and keys hold UTF-8, the system holds any bytes."""

from __future__ import annotations

import os
from functools import lru_cache

from tvfs.content.names import escape

_SHORT = 200
"""Characters of what is remembered: names and values of variables are the same in each call of a build."""


def text(value: str) -> str:
    """Return the UTF-8 text that stands for a value; different values give different texts."""
    return _known_text(value) if len(value) <= _SHORT else escape(os.fsencode(value))


@lru_cache(8192)
def _known_text(value: str) -> str:
    return escape(os.fsencode(value))
