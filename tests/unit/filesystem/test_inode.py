from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.content.reference import Content, ContentKind
from tvfs.filesystem.inode import ROW_BYTES, Inode, InodeTooNew

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.builds(
        Inode,
        mode=u32, uid=u32, gid=u32, nlink=u32, size=u64, atime_ns=i64, mtime_ns=i64, ctime_ns=i64, rdev=u32,
        flags=st.integers(0, 2**16 - 1), state=st.integers(0, 4), hash=st.binary(min_size=32, max_size=32),
        parent=u64, entries=u64, target=st.binary(max_size=4095), born_ns=i64,
    )
)  # fmt: skip
def test_a_row_gives_back_what_was_put_into_it(inode: Inode) -> None:
    assert Inode.decode(inode.encode()) == inode
    assert len(inode.encode()) == 112 + len(inode.target)


def test_the_bytes_of_a_row_are_those_of_the_format() -> None:
    inode = Inode(0o100644, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, b"\xaa" * 32, 10, 11, born_ns=12)
    assert inode.encode().hex() == (
        "01020009" "000081a4" "00000001" "00000002" "00000003" "00000008" "0000000000000004" "0000000000000005"
        "0000000000000006" "0000000000000007" "000000000000000a" "000000000000000b" + "aa" * 32 + "00" * 7 + "0c"
    )  # fmt: skip


def test_a_row_from_before_birth_times_were_kept_has_none() -> None:
    row = Inode(0o100644, 1, 2, 3, 4, 5, 6, 7, target=b"to", born_ns=9).encode()
    assert Inode.decode(row[:104] + bytes(8) + row[112:]).born_ns == 0


def test_a_row_of_a_later_version_is_refused() -> None:
    with pytest.raises(InodeTooNew):
        Inode.decode(b"\x02" + bytes(ROW_BYTES - 1))


def test_content_goes_in_and_comes_out() -> None:
    content = Content(ContentKind.MANIFEST, b"\x01" * 32, 99)
    assert Inode(0o100644, 0, 0, 1, 0, 0, 0, 0).with_content(content).content == content
