"""What is mounted where, as the kernel tells it; nothing that is mounted is touched, for its server may hang."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_ESCAPED = re.compile(r"\\([0-7]{3})")
_TYPE = "fuse.taskvault"


class Mount(NamedTuple):
    """One mount."""

    point: str
    kind: str
    source: str


def mounts() -> Iterator[Mount]:
    """Yield every mount, a later one above an earlier one."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            kind, source = after.split(" ")[:2]
            yield Mount(_plain(before.split(" ")[4]), kind, _plain(source))


def of_vault(home: Path) -> list[str]:
    """Return where the vault is mounted, also if nobody serves it any more."""
    sources = {f"taskvault:{quote(os.fsencode(path), safe='/')}" for path in (home, os.path.realpath(home))}
    return [mount.point for mount in mounts() if mount.kind == _TYPE and mount.source in sources]


def is_dead(point: str) -> bool:
    """Whether nobody serves the mount; asked only where no daemon is known to hang."""
    try:
        os.statvfs(point)  # the one question that the kernel never answers itself
    except OSError:
        return True
    return False


def let_go(point: str) -> None:
    """Take a mount away without asking its server; who still uses it keeps what is left of it."""
    commands = (["fusermount3", "-u", "-z", point], ["umount", "-l", point])
    for command in commands:
        with suppress(FileNotFoundError):
            if not subprocess.run(command, check=False, capture_output=True).returncode:
                return


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
