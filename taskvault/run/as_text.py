"""Arguments, variables and paths as text: messages and keys hold UTF-8, the system holds any bytes."""

from __future__ import annotations

import os

from tvfs.content.names import escape


def text(value: str) -> str:
    """Return the UTF-8 text that stands for a value; different values give different texts."""
    return escape(os.fsencode(value))
