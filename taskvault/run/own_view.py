"""What the kernel tells each process of itself: who looks for another cannot say what that would see.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from taskvault.run.pathset import Item

_OWN, _OWN_OF_THREAD = b"/proc/self/", b"/proc/thread-self/"
_OWN_VIEW = re.compile(rb"/proc/(?:self|thread-self)/(?!(?:mounts|mountinfo|mountstats|uid_map|gid_map)\Z)")
"""What the kernel says there of a caller, its control group say, is not what it says of us.

Mounts and numbers of users are those of a namespace and a root directory, which are the same for us: see `identity.c`.
"""


def as_seen_by(process: int, path: bytes) -> bytes:
    """Return where is, for us, what a process finds at a path."""
    if path.startswith(_OWN):
        return b"/proc/%d/" % process + path[len(_OWN) :]
    if path.startswith(_OWN_OF_THREAD):
        return b"/proc/%d/task/%d/" % (process, process) + path[len(_OWN_OF_THREAD) :]
    return path


def holds_own_view(items: Iterable[Item]) -> bool:
    """Whether something was looked at that is another for each process."""
    return any(_OWN_VIEW.match(item.path) for item in items)
