"""Names in the root under which replays put things together: apart from each other, and nothing is left for ever."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from taskvault.run.staging import remove_left, staging


def left_behind(root: Path) -> None:
    place = root / ".taskvault-replay-a"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "half").write_text("half")
    (root / ".taskvault-replay-b-0").write_text("a file")
    (root / ".taskvault-replay-c-0").symlink_to("kept")


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root))


def test_what_was_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    left_behind(tmp_path)
    remove_left(tmp_path)
    assert names(tmp_path) == ["kept"]
    remove_left(tmp_path)
    remove_left(tmp_path / "gone")


def test_while_anybody_puts_something_together_nothing_is_removed(tmp_path: Path) -> None:
    left_behind(tmp_path)
    with staging(tmp_path) as one, staging(tmp_path) as other:
        assert one != other
        Path(f"{one}-0").write_text("ours")
        remove_left(tmp_path)
        assert len(names(tmp_path)) == 4
    remove_left(tmp_path)
    assert names(tmp_path) == []


def test_who_locks_the_root_for_something_else_holds_nobody_up(tmp_path: Path) -> None:
    left_behind(tmp_path)
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with staging(tmp_path) as prefix:
        assert prefix.startswith(f"{tmp_path}/.taskvault-replay-")
        Path(prefix).mkdir()
        remove_left(tmp_path)
        assert len(names(tmp_path)) == 4
        os.close(lock)
        # Whoever has the lock alone now does not know of what began without.
        remove_left(tmp_path)
        assert names(tmp_path) == [os.path.basename(prefix)]
