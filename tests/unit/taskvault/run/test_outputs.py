from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvault.run.outputs import (
    Output,
    OutputsUnusable,
    find_outputs,
    holds_path,
    parse_outputs,
    stream_holds,
)
from taskvault.run.patterns import PatternInvalid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("build/a.o", "build/deep/b.o", "prog", "src/c.o"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def find(root: Path, *patterns: str, inputs: tuple[str, ...] = ()) -> list[Output]:
    return find_outputs(root, parse_outputs(patterns), inputs)


def test_a_directory_stands_for_everything_below(root: Path) -> None:
    assert find(root, "build", "prog") == [Output("build", True), Output("prog", False)]


def test_files_are_found_one_by_one(root: Path) -> None:
    assert find(root, "**/*.o") == [
        Output("build/a.o", False), Output("build/deep/b.o", False), Output("src/c.o", False),
    ]  # fmt: skip


def test_a_directory_with_something_excluded_below_is_taken_apart(root: Path) -> None:
    assert find(root, "build", "!build/deep") == [Output("build/a.o", False)]


def test_an_output_that_was_not_made_is_named(root: Path) -> None:
    with pytest.raises(OutputsUnusable, match="'lib' was not made"):
        find(root, "build", "lib")


def test_a_directory_that_also_holds_inputs_is_not_replaced(root: Path) -> None:
    with pytest.raises(OutputsUnusable, match=r"'build/a\.o' lies in an output directory"):
        find(root, "build", inputs=("build/a.o",))


def test_the_whole_root_is_no_output(root: Path) -> None:
    for pattern in (".", "**"):
        with pytest.raises(PatternInvalid):
            parse_outputs([pattern])


def test_a_special_file_cannot_be_stored(root: Path) -> None:
    os.mkfifo(root / "build/deep/pipe")
    with pytest.raises(OutputsUnusable, match="neither a file"):
        find(root, "build")


def test_a_result_that_names_its_root_is_found_out(root: Path) -> None:
    wanted, outputs = [os.fsencode(root)], [Output("build", True)]
    assert not holds_path(wanted, root, outputs)
    (root / "build/deep/b.o").write_bytes(b"\x7fELF" + os.fsencode(root) + b"/src/b.c\0")
    assert holds_path(wanted, root, outputs)


def test_what_cannot_be_searched_counts_as_naming_its_root(root: Path) -> None:
    (root / "build/a.gz").write_bytes(gzip.compress(b"anything"))
    assert holds_path([os.fsencode(root)], root, [Output("build", True)])


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=5), st.integers(1, 20))
def test_a_path_is_found_wherever_blocks_end(content: bytes, wanted: bytes, block: int) -> None:
    blocks = [content[start : start + block] for start in range(0, len(content), block)]
    assert stream_holds([wanted], blocks) == (wanted in content)
