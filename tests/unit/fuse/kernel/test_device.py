"""What this process may ask of the kernel is known before it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvfs.fuse.kernel.device import may_open_backing

ALL_USERS = "         0          0 4294967295\n"
SOME_USERS = "         0       1000          1\n"
ALL_RIGHTS = "Name:\tpython\nCapEff:\t000001ffffffffff\n"
RIGHTS_OF_A_CONTAINER = "Name:\tpython\nCapEff:\t00000000a80425fb\n"


@pytest.mark.parametrize(
    ("users", "status", "may"),
    [
        (ALL_USERS, ALL_RIGHTS, True),
        (ALL_USERS, RIGHTS_OF_A_CONTAINER, False),
        (SOME_USERS, ALL_RIGHTS, False),
        (ALL_USERS, "Name:\tpython\n", False),
        ("", ALL_RIGHTS, False),
    ],
    ids=["root", "container", "rootless", "no capabilities shown", "no users shown"],
)
def test_only_who_administers_the_machine_may_have_files_read_past_him(
    tmp_path: Path, users: str, status: str, may: bool
) -> None:
    (tmp_path / "uid_map").write_text(users)
    (tmp_path / "status").write_text(status)
    assert may_open_backing(tmp_path) is may


def test_where_nothing_is_shown_nothing_may_be_had(tmp_path: Path) -> None:
    assert not may_open_backing(tmp_path / "absent")
