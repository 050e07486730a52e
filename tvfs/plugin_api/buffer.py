"""The kinds of bytes that plugins accept (`collections.abc.Buffer` came only with Python 3.12)."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes; a plugin never keeps a reference to them after it has returned."""
