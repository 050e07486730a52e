from __future__ import annotations

import os
import socket

import pytest

from tvd.control.peer import Admission, GroupUnknown, Peer, find_group, peer_of

OWNER = 1000
STAFF = 50


@pytest.mark.parametrize(
    ("peer", "group", "allowed"),
    [
        (Peer(1, OWNER, 1), None, True),
        (Peer(1, 0, 0), None, True),
        (Peer(1, 1001, 1), None, False),
        (Peer(1, 1001, STAFF), None, False),
        (Peer(1, 1001, STAFF), STAFF, True),
        (Peer(1, 1001, 1, frozenset({STAFF})), STAFF, True),
        (Peer(1, 1001, 1, frozenset({STAFF + 1})), STAFF, False),
    ],
    ids=[
        "the owner",
        "root",
        "another user",
        "another user, no group set",
        "a member by main group",
        "a member by another group",
        "no member",
    ],
)
def test_who_may_talk_to_the_owner(peer: Peer, group: int | None, allowed: bool) -> None:
    assert Admission(OWNER, group).allows(peer) is allowed


def test_the_kernel_says_who_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == frozenset(os.getgroups())


def test_a_group_that_does_not_exist_is_named() -> None:
    with pytest.raises(GroupUnknown, match="no-such-group"):
        find_group("no-such-group")
    assert find_group(None) is None
