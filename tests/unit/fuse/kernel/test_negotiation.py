"""What is agreed with a kernel: no more than it offers, nothing that excludes what we want more."""

from __future__ import annotations

import struct

import pytest

from tvfs.fuse.kernel import negotiation
from tvfs.fuse.kernel.negotiation import ALWAYS, PASSTHROUGH, REFUSED, WRITEBACK, KernelTooOld, negotiate

LINUX_6_18 = (7, 45, 131072, 0x73FFFFFB, 0x5FD)
LINUX_5_4 = (7, 31, 131072, 0x03FFFFFB, 0)


def test_every_bit_that_linux_offers_is_wanted_or_refused_with_a_reason() -> None:
    known = [*ALWAYS, WRITEBACK, PASSTHROUGH, *REFUSED]
    bits = [capability.bit for capability in known]
    assert len(bits) == len(set(bits))
    offered = LINUX_6_18[3] | LINUX_6_18[4] << 32
    # IOCTL_DIR, MAP_ALIGNMENT, SUBMOUNTS, INODE_DAX, DIRECT_IO_ALLOW_MMAP, NO_EXPORT: of other kinds of server.
    others = {11, 26, 27, 33, 36, 38}
    assert {bit for bit in range(64) if offered >> bit & 1} - set(bits) <= others
    assert all(capability.why for capability in known)


def test_without_passthrough_the_kernel_gathers_writes() -> None:
    agreement = negotiate(LINUX_6_18, passthrough=False)
    assert agreement is not None
    assert agreement.writeback
    assert not agreement.passthrough
    assert all(agreement.has(capability) for capability in ALWAYS)
    assert not any(agreement.has(capability) for capability in REFUSED)


def test_the_kernel_has_either_passthrough_or_a_writeback_cache() -> None:
    agreement = negotiate(LINUX_6_18, passthrough=True)
    assert agreement is not None
    assert (agreement.writeback, agreement.passthrough) == (False, True)
    assert struct.unpack_from("=I", agreement.encode(), 36)[0] == 1, "the stack is one deep"


def test_a_kernel_without_passthrough_gets_a_writeback_cache_all_the_same() -> None:
    agreement = negotiate(LINUX_5_4, passthrough=True)
    assert agreement is not None
    assert (agreement.writeback, agreement.passthrough) == (True, False)
    assert not agreement.flags & ~LINUX_5_4[3]
    assert agreement.minor == 31


def test_the_answer_has_the_limits_where_the_kernel_looks_for_them() -> None:
    agreement = negotiate(LINUX_6_18, passthrough=False, max_background=64)
    assert agreement is not None
    fields = struct.unpack("=IIIIHHIIHHIIH22x", agreement.encode())
    assert fields[:3] == (7, 45, 131072)
    assert fields[4:6] == (64, 48)
    assert fields[6] == 1 << 20
    assert fields[8] == 256
    assert fields[3] | fields[10] << 32 == agreement.flags


def test_a_later_kernel_is_spoken_with_in_the_latest_words_known() -> None:
    agreement = negotiate((7, 99, 131072, 0xFFFFFFFF, 0xFFFFFFFF), passthrough=False)
    assert agreement is not None
    assert agreement.minor == negotiation.p.MINOR_MOST


def test_a_kernel_of_a_later_major_version_is_to_ask_again() -> None:
    assert negotiate((8, 1, 0, 0, 0), passthrough=False) is None


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (6, 99)])
def test_an_older_kernel_is_refused_with_what_to_do(major: int, minor: int) -> None:
    with pytest.raises(KernelTooOld, match="pyfuse3"):
        negotiate((major, minor, 0, 0, 0), passthrough=False)
