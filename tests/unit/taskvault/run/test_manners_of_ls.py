"""What `ls` was asked for decides whether times of what it looks at are content."""

from __future__ import annotations

import pytest

from taskvault.run.rules import keeps_times


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["ls"], False),
        (["ls", "-di", "."], False),
        (["ls", "-A1"], False),
        (["ls", "-l"], True),
        (["ls", "-t"], True),
        (["ls", "-td", "a", "b"], True),
        (["ls", "-t", "a", "b"], True),
        (["ls", "--full-time"], True),
        (["ls", "-t", "configure", "conftest.file"], False),
        (["ls", "-Lt", "./configure", "conftest.file"], False),
        (["ls", "-Lt", "conftest.file", "configure"], True),
        (None, True),
    ],
)
def test_ls_keeps_times_where_it_shows_or_compares_them(arguments: list[str] | None, kept: bool) -> None:
    assert keeps_times("ls", arguments) is kept
    assert keeps_times("tar", arguments)
    assert not keeps_times("gcc", arguments)
