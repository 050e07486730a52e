"""Cases of which the suite tries some, and `make slow` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(values: Iterable[Any], *, one_in: int = 2) -> list[Any]:
    """Return the values as parameters: the first of each so many is for the suite, the others are slow."""
    return [value if number % one_in == 0 else _slow(value) for number, value in enumerate(values)]


def _slow(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
