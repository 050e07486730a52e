from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskvault.run.input_tree import changed_since, described, followed_digest, hash_inputs, input_root
from taskvault.run.inputs import FoundInputs, InputsUnusable, find_inputs
from taskvault.run.patterns import PatternSet
from tvfs.plugin_api import PluginRegistry

HASH = PluginRegistry().hash_function("blake3")
NOTHING = PatternSet([])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("src/a.c", "src/b.c", "src/deep/c.c", "include/a.h", "Makefile", "build/old.o"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def find(root: Path, *inputs: str, outputs: tuple[str, ...] = ()) -> FoundInputs:
    with ThreadPoolExecutor(2) as executor:
        return hash_inputs(find_inputs(root, PatternSet(inputs), PatternSet(outputs)), root, HASH, executor)


def paths(found: FoundInputs) -> list[str]:
    return [file.path for file in found.files]


def changed(before: FoundInputs, root: Path, *inputs: str, outputs: tuple[str, ...] = ()) -> str | None:
    return changed_since(before, root, PatternSet(inputs), PatternSet(outputs), HASH)


def test_a_directory_takes_everything_below(root: Path) -> None:
    assert paths(find(root, "src", "Makefile")) == ["Makefile", "src/a.c", "src/b.c", "src/deep/c.c"]


def test_outputs_are_no_inputs(root: Path) -> None:
    assert "build/old.o" not in paths(find(root, ".", outputs=("build",)))
    assert paths(find(root, "src", outputs=("src/*.c",))) == ["src/deep/c.c"]


def test_an_output_that_is_literally_named_as_input_is_one(root: Path) -> None:
    assert paths(find(root, "src", "build/old.o", outputs=("build",))) == [
        "build/old.o", "src/a.c", "src/b.c", "src/deep/c.c",
    ]  # fmt: skip
    assert paths(find(root, "build", outputs=("build",))) == ["build/old.o"]


def test_an_input_that_names_nothing_makes_them_unusable(root: Path) -> None:
    with pytest.raises(InputsUnusable, match="'doc' names nothing"):
        find(root, "src", "doc")
    with pytest.raises(InputsUnusable, match="names nothing"):
        find(root, "build/**/*.o", outputs=("build",))


def test_a_special_file_makes_them_unusable(root: Path) -> None:
    os.mkfifo(root / "src/pipe")
    with pytest.raises(InputsUnusable, match="neither a file"):
        find(root, "src")


def test_times_and_owners_do_not_count_but_content_names_and_execute_bits_do(root: Path) -> None:
    before = input_root(find(root, "src"), HASH)
    os.utime(root / "src/a.c", (1, 1))
    os.chmod(root / "src/a.c", 0o600)
    assert input_root(find(root, "src"), HASH) == before
    digests = {before}
    (root / "src/a.c").write_text("other")
    digests.add(input_root(find(root, "src"), HASH))
    os.chmod(root / "src/a.c", 0o755)
    digests.add(input_root(find(root, "src"), HASH))
    (root / "src/a.c").rename(root / "src/z.c")
    digests.add(input_root(find(root, "src"), HASH))
    (root / "src/empty").mkdir()
    digests.add(input_root(find(root, "src"), HASH))
    (root / "src/link").symlink_to("a.c")
    digests.add(input_root(find(root, "src"), HASH))
    assert len(digests) == 6


def test_a_link_brings_in_the_content_that_it_leads_to(root: Path) -> None:
    (root / "src/link").symlink_to("../include/a.h")
    before = find(root, "src")
    (root / "include/a.h").write_text("changed")
    after = find(root, "src")
    assert input_root(before, HASH) == input_root(after, HASH)
    assert followed_digest(before, HASH) != followed_digest(after, HASH)
    assert "src/link (followed)" in described(after)


def test_a_link_to_a_directory_that_is_no_input_makes_them_unusable(root: Path) -> None:
    (root / "src/more").symlink_to("../include")
    with pytest.raises(InputsUnusable, match="symbolic link"):
        find(root, "src")
    assert "include/a.h" in paths(find(root, "src", "include"))


def test_a_link_that_leads_nowhere_is_its_target(root: Path) -> None:
    (root / "src/link").symlink_to("nowhere")
    assert find(root, "src").symlinks == {"src/link": "nowhere"}


def test_what_stays_as_it_was_is_not_called_changed(root: Path) -> None:
    before = find(root, "src")
    os.link(root / "src/a.c", root / "include/link.c")
    (root / "include/new.h").write_text("not declared")
    assert changed(before, root, "src") is None


def test_every_kind_of_change_while_a_run_is_under_way_is_seen(root: Path) -> None:
    before = find(root, "src")
    (root / "src/a.c").write_text("SRC/A.C")
    assert changed(before, root, "src") == "'src/a.c'"
    (root / "src/a.c").write_text("src/a.c")
    assert changed(before, root, "src") == "'src/a.c'", "it was another meanwhile"
    before = find(root, "src")
    (root / "src/new.c").touch()
    assert changed(before, root, "src") == "'src/new.c'"
    (root / "src/new.c").unlink()
    (root / "src/b.c").unlink()
    assert changed(before, root, "src") == "'src/b.c'"


def test_a_change_in_the_same_tick_with_the_same_size_is_seen(root: Path) -> None:
    before = find(root, "Makefile")
    status = os.stat(root / "Makefile")
    (root / "Makefile").write_text("makefile")
    os.utime(root / "Makefile", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changed(before, root, "Makefile") == "'Makefile'"
