"""Who is at the other end of a connection, and whether they may talk."""

from __future__ import annotations

import array
import grp
import socket
import struct
from dataclasses import dataclass

import trio

from tvfs.errors import TaskVaultError

_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59
"""Supplementary groups of the peer (Linux 4.13); Python has no name for it."""
_GROUPS_BYTES = 1024
"""As much as Python passes on: 256 groups."""


class GroupUnknown(TaskVaultError):
    """The group that may connect does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no group {name!r}; make it, or correct control.group in config.toml.")
        self.name = name


@dataclass(frozen=True, slots=True)
class Peer:
    """A process as the kernel saw it when it connected."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Supplementary groups."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may talk to the owner: its own user, root, and the members of one group if there is one."""

    owner_uid: int
    group_gid: int | None = None

    def is_owner(self, peer: Peer) -> bool:
        """Whether the vault is the peer's own; everything is root's."""
        return peer.uid in (0, self.owner_uid)

    def allows(self, peer: Peer) -> bool:
        """Whether the peer may talk."""
        if self.is_owner(peer):
            return True
        return self.group_gid is not None and (self.group_gid == peer.gid or self.group_gid in peer.groups)


def find_group(name: str | None) -> int | None:
    """Return the number of a group; raise `GroupUnknown`."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise GroupUnknown(name) from None


def peer_of(connection: socket.socket | trio.socket.SocketType) -> Peer:
    """Return who connected; raise `OSError` if the connection is already dead."""
    pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid, gid, _groups_of(connection))


def _groups_of(connection: socket.socket | trio.socket.SocketType) -> frozenset[int]:
    try:
        return frozenset(array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)))
    except OSError:  # in more groups than that, or an old kernel: the main group still counts
        return frozenset()
