from __future__ import annotations

import pytest

from tvfs.filesystem import written
from tvfs.filesystem.written import Written


def test_what_was_opened_is_known_and_too_many_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "MOST", 3)
    known = Written()
    for ino in (5, 6, 7, 5):
        known.add(ino)
    assert [ino in known for ino in (5, 6, 7, 8)] == [True, True, True, False]
    known.add(8)
    assert 9 in known


def test_after_another_daemon_it_may_be_any() -> None:
    known = Written()
    assert 5 not in known
    known.add_all()
    known.add(6)
    assert 5 in known
