"""Structures have the sizes that linux/fuse.h gives them, and requests and notifications its layout."""

from __future__ import annotations

import struct

import msgspec
import pytest

from tvfs.filesystem.model import FileAttributes, Ino
from tvfs.fuse.kernel import protocol as p
from tvfs.fuse.kernel import replies

# `sizeof` of each structure, as a C compiler tells it of linux/fuse.h 7.45.
SIZES = {
    "IN_HEADER": 40, "OUT_HEADER": 16, "INIT_OUT": 64, "FORGET_IN": 8, "BATCH_FORGET_IN": 8, "FORGET_ONE": 16,
    "GETATTR_IN": 16, "SETATTR_IN": 88, "MKNOD_IN": 16, "MKDIR_IN": 8, "RENAME_IN": 8, "RENAME2_IN": 16, "LINK_IN": 8,
    "OPEN_IN": 8, "CREATE_IN": 16, "READ_IN": 40, "WRITE_IN": 40, "RELEASE_IN": 24, "FSYNC_IN": 16, "FLUSH_IN": 24,
    "SETXATTR_IN": 8, "GETXATTR_IN": 8, "ACCESS_IN": 8, "INTERRUPT_IN": 8, "FALLOCATE_IN": 32, "LSEEK_IN": 24,
    "STATX_IN": 24, "STATX_OUT": 288,
    "COPY_FILE_RANGE_IN": 56, "ATTR": 88, "ENTRY_OUT": 128, "ATTR_OUT": 104, "OPEN_OUT": 16, "WRITE_OUT": 8,
    "STATFS_OUT": 80, "GETXATTR_OUT": 8, "LSEEK_OUT": 8, "COPY_FILE_RANGE_OUT": 8, "DIRENT": 24,
    "INVAL_INODE_OUT": 24, "INVAL_ENTRY_OUT": 16, "DELETE_OUT": 24, "BACKING_MAP": 16,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_a_structure_is_as_long_as_the_kernels(name: str, size: int) -> None:
    assert getattr(p, name).size == size


def test_every_structure_is_measured() -> None:
    structures = {name for name, value in vars(p).items() if isinstance(value, struct.Struct)}
    parts = {"NOTHING", "INIT_IN", "INIT_IN_FLAGS2", "INIT_OUT_MAJOR"}
    assert structures - parts == set(SIZES)
    assert p.INIT_IN.size + p.INIT_IN_FLAGS2.size + 11 * 4 == 64


def test_the_device_is_spoken_to_by_the_numbers_of_the_header() -> None:
    def write(number: int, size: int) -> int:
        return 1 << 30 | size << 16 | 229 << 8 | number

    assert write(1, 16) == p.BACKING_OPEN
    assert write(2, 4) == p.BACKING_CLOSE


def test_notifications_are_laid_out_as_the_kernel_reads_them() -> None:
    header = struct.Struct("=IiQ")
    assert replies.forget_attributes(7) == header.pack(40, 2, 0) + struct.pack("=Qqq", 7, -1, 0)
    assert replies.forget_pages(7) == header.pack(40, 2, 0) + struct.pack("=Qqq", 7, 0, 0)
    assert replies.forget_name(7, b"name") == header.pack(37, 3, 0) + struct.pack("=QII", 7, 4, 0) + b"name\0"
    assert replies.name_removed(7, 8, b"name") == header.pack(45, 6, 0) + struct.pack("=QQII", 7, 8, 4, 0) + b"name\0"


def test_statx_is_answered_where_the_kernel_looks_for_it() -> None:
    second = 1_000_000_000
    attributes = FileAttributes(
        Ino(7), 0o020644, 2, 3, 4, 1 << 20 | 5 << 8 | 6, 100, 8, second + 1, 2 * second + 2, 3 * second + 3
    )
    known = msgspec.structs.replace(attributes, born_ns=4 * second + 4)
    for shown, mask, born in ((attributes, 0x7FF, (0, 0)), (known, 0xFFF, (4, 4))):
        answer = replies.statx(shown, 60.5)
        assert struct.unpack_from("=QII", answer) == (60, second // 2, 0)
        assert struct.unpack_from("=II8xIIIH", answer, 32) == (mask, 65536, 2, 3, 4, 0o020644)
        assert struct.unpack_from("=QQQ", answer, 64) == (7, 100, 8)
        times = [struct.unpack_from("=qI", answer, 96 + 16 * number) for number in range(4)]
        assert times == [(1, 1), born, (3, 3), (2, 2)]
        assert struct.unpack_from("=IIII", answer, 160) == (5, 0x106, 0, 0)
