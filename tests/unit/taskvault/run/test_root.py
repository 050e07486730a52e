from __future__ import annotations

from pathlib import Path

import pytest

from taskvault.run.root import Place, RootInvalid, find_place


def test_the_root_is_the_working_directory_when_nothing_marks_another(tmp_path: Path) -> None:
    assert find_place(tmp_path, None) == Place(tmp_path.resolve(), "")


def test_the_nearest_git_directory_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "project/.git").mkdir(parents=True)
    (tmp_path / "project/src/deep").mkdir(parents=True)
    assert find_place(tmp_path / "project/src/deep", None) == Place(tmp_path / "project", "src/deep")


def test_a_taskvault_file_is_stronger_than_a_nearer_git_directory(tmp_path: Path) -> None:
    (tmp_path / ".taskvault.toml").touch()
    (tmp_path / "module/.git").mkdir(parents=True)
    assert find_place(tmp_path / "module", None) == Place(tmp_path, "module")


def test_a_root_that_does_not_hold_the_working_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    with pytest.raises(RootInvalid, match="not below it"):
        find_place(tmp_path / "one", tmp_path / "other")
    outside = find_place(tmp_path / "one", tmp_path / "other", anywhere=True)
    assert outside == Place(tmp_path / "other", str(tmp_path / "one"))
    with pytest.raises(RootInvalid, match="not a directory"):
        find_place(tmp_path / "one", tmp_path / "missing")


def test_a_link_to_the_project_has_the_same_root(tmp_path: Path) -> None:
    (tmp_path / "project/.git").mkdir(parents=True)
    (tmp_path / "link").symlink_to("project")
    assert find_place(tmp_path / "link", None).root == tmp_path / "project"
