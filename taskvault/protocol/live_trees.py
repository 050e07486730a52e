"""What a client says to the owner about living trees under the mount."""

from __future__ import annotations

from taskvault.protocol.message import Message


class SnapshotLive(Message, frozen=True, tag=True):
    """Seal a live path under the mount (relative to it) and everything below; answered with `SnapshotReply`.

    `paths` picks paths (relative to `path`) to keep, with their parents; empty keeps everything.  `excluded` are names
    (fnmatch) to leave out at any depth.  `Failed(OpenForWriting)` if a file stays open for writing and `allow_open` is
    false.
    """

    path: str
    paths: list[str] = []
    excluded: list[str] = []
    allow_open: bool = False
