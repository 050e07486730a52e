"""How the built-in plugins read their parameters: whole numbers with defaults, nothing unknown."""

from __future__ import annotations

from collections.abc import Mapping


def read_numbers(plugin: str, given: Mapping[str, int | str], defaults: Mapping[str, int]) -> dict[str, int]:
    """Return `defaults` with what was `given` in their place; raise `ValueError` for unknown names and other types."""
    numbers = dict(defaults)
    for name, value in given.items():
        if name not in defaults:
            known = f"known: {', '.join(sorted(defaults))}" if defaults else "it has none"
            raise ValueError(f"{plugin} has no parameter {name!r} ({known}).")
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"The parameter {name!r} of {plugin} must be a whole number, not {value!r}.")
        numbers[name] = value
    return numbers
