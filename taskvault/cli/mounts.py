"""What is mounted where, as the kernel tells it; nothing that is mounted is touched, for its server may hang."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_ESCAPED = re.compile(r"\\([0-7]{3})")
_TYPE = "fuse.taskvault"
_PATIENCE_S = 10.0
"""For what may have to ask a server that hangs."""


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
    """Whether nobody serves the mount; one whose server does not answer in time is served, as far as we know."""
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask() -> None:
        try:
            os.statvfs(point)  # the one question that the kernel never answers itself
        except OSError:
            answers.put(True)
        else:
            answers.put(False)

    # Who asks a server that hangs waits for it, and can only be killed: not with us.
    threading.Thread(target=ask, daemon=True).start()
    with suppress(queue.Empty):
        return answers.get(timeout=_PATIENCE_S)
    return False


def let_go(point: str) -> None:
    """Take a mount away without asking its server; who still uses it keeps what is left of it."""
    commands = (["fusermount3", "-u", "-z", point], ["umount", "-l", point])
    for command in commands:
        with suppress(FileNotFoundError, subprocess.TimeoutExpired):
            if not subprocess.run(command, check=False, capture_output=True, timeout=_PATIENCE_S).returncode:
                return


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
