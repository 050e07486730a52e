"""Opens again what the kernel has open, when a daemon goes on with a session that another began."""

from __future__ import annotations

from tvfs.filesystem.files import Files
from tvfs.filesystem.hot_files import HotFiles
from tvfs.filesystem.inode import STAGED, ContentState, Inode
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.session_record import RowKind, SessionRecord


def reopen(record: SessionRecord | None, nodes: Nodes, files: Files, hot: HotFiles) -> None:
    """Open files under the handles that the kernel has, and keep the copies that it reads past us.

    Before anything is put in order: what is open must not be purged.  None: there is no such session.
    """
    if record is None:
        hot.start()
        return
    files.used_up_to(record.highest_handle)
    direct = set()
    for row in record.handles():
        files.reopen(row.number, row.ino, writes=row.kind is RowKind.WRITER)
        if row.backing_id:
            direct.add(row.ino)
    # Those that are read now come last: of inodes with one content, only the last can have the copy.
    past_us = sorted(record.inodes_read_past_us(), key=direct.__contains__)
    found = ((ino, nodes.find(ino)) for ino in past_us)
    hot.start([(ino, inode.content) for ino, inode in found if inode is not None and _is_sealed(inode)], direct)


def _is_sealed(inode: Inode) -> bool:
    return inode.is_regular and inode.state not in (STAGED, ContentState.EMPTY)
