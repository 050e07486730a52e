from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvd.config_report import errors, settings


def said(tmp_path: Path, text: str) -> list[tuple[int | None, str]]:
    (tmp_path / "config.toml").write_text(text)
    return [(error.line, error.key) for error in errors(tmp_path / "config.toml", {})]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[log]\nlevel = 'error'", 2),
        ("log.level = 'error'", 1),
        ("\n\n log = { level = 'error' } ", 3),
        ("[log] # here\n\n'level'='error'", 3),
        ("[log]\nmax_bytes = '''\n1M'''\nlevel = 'error'", 4),
        ("[log]\nlevel = '''\\\nerror'''".replace("'''", '"""'), 2),
    ],
)
def test_the_line_of_a_setting_is_where_its_statement_begins_whatever_the_notation(
    tmp_path: Path, text: str, line: int
) -> None:
    (tmp_path / "config.toml").write_text(text)
    (level,) = [each for each in settings(tmp_path / "config.toml", {}) if (each.section, each.key) == ("log", "level")]
    assert (level.value, level.source, level.line) == ("error", "file", line)


def test_a_heading_that_cannot_be_read_takes_what_is_below_it_along(tmp_path: Path) -> None:
    assert said(tmp_path, "[log]\nlevel = 'info'\n[mount\nenabled = 3\n[control]\nno = 1") == [
        (3, ""),
        (6, "control.no"),
    ]


def test_a_value_where_a_section_belongs_has_its_line(tmp_path: Path) -> None:
    assert said(tmp_path, "\nlog = 3") == [(2, "log")]


def test_a_text_that_never_ends_is_one_error(tmp_path: Path) -> None:
    found = said(tmp_path, "[log]\nlevel = '''\ninfo\n[mount]\n")
    assert len(found) >= 1
    assert all(key == "" for _, key in found)


@given(st.text(alphabet="[]{}=.'\"\n# abclogevt1-", max_size=80))
def test_whatever_is_in_the_file_the_check_ends_and_says_sentences(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(text)
    for error in errors(path, {}):
        assert error.message[-1] in ".?"
        assert str(path) in error.message
