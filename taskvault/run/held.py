"""What a result holds of where and by whom it was made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from taskvault.run import outputs as made
from taskvault.run.execute import Captured
from taskvault.run.outputs import Output
from taskvault.run.whereabouts import Held

_READ_BYTES = 1 << 20
_ANYTHING = b""
_SHORTEST_SEARCHED = 4
"""Shorter values of variables are found everywhere by chance."""


def session_values(environment: Mapping[str, str], counting: Mapping[str, str]) -> dict[bytes, str]:
    """Return the values of variables that do not count, each with the name of its variable.

    Paths are not among them: programs name them for other reasons.
    """
    return {
        os.fsencode(value): name
        for name, value in environment.items()
        if len(value) >= _SHORTEST_SEARCHED
        and not value.startswith("/")
        and name not in counting
        and name not in ("MAKEFLAGS", "GNUMAKEFLAGS")
    }


def held_by(wanted: Iterable[bytes], captured: Captured, root: Path, outputs: Sequence[Output]) -> Held:
    """Return what the streams, the outputs, their names and targets hold of the texts; raise `OSError`."""
    searched = frozenset(wanted)
    holders: dict[bytes, str] = {}
    for stream, title in ((captured.stdout, "stdout"), (captured.stderr, "stderr")):
        stream.seek(0)
        texts = made.held_by_blocks(searched - holders.keys(), iter(partial(stream.read, _READ_BYTES), b""))
        holders.update(dict.fromkeys(texts, title))
    for place in made.places_of(root, outputs):
        relative = str(place.relative_to(root))
        name = os.fsencode(relative)
        holders.update({text: relative for text in searched - holders.keys() if text in name})
        if place.is_dir() and not place.is_symlink():
            continue
        texts, compressed = made.held_by_file(searched - holders.keys(), place)
        holders.update(dict.fromkeys(texts, relative))
        if compressed:
            holders.setdefault(_ANYTHING, relative)
    return Held(frozenset(holders) - {_ANYTHING}, _ANYTHING in holders, holders)
