"""Files that are made from the sources, and the check that they are up to date."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def bring_up_to_date(folder: Path, wanted: Mapping[str, str], target: str, *, check: bool, suffix: str = "*") -> int:
    """Write files by name and remove others that match `suffix`; return the exit status.

    With `check` nothing is written: 1 if something would be, which `target` puts right.
    """
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob(suffix) if path.is_file()}
    stale = sorted(name for name, text in wanted.items() if there.get(name) != text)
    surplus = sorted(there.keys() - wanted.keys())
    if check:
        for name in [*stale, *surplus]:
            print(f"{folder.name}/{name} is not up to date; run `{target}`.", file=sys.stderr)
        return 1 if stale or surplus else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (folder / name).write_text(wanted[name], encoding="utf-8")
        print(f"wrote {folder.name}/{name}")
    for name in surplus:
        (folder / name).unlink()
        print(f"removed {folder.name}/{name}")
    return 0
