"""What a result holds of where it was made: in streams, files, their names, links and compressed sections."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvault.run.compressed_sections import SectionUnreadable, compressed_sections
from taskvault.run.execute import Captured
from taskvault.run.held import held_by, session_values
from taskvault.run.outputs import Output, held_by_blocks
from taskvault.run.whereabouts import Held, Whereabouts

WHERE = Whereabouts("/home/me/project", frozenset({"/link/name"}), "/tmp/scratch/1")
SECRET = b"/home/me/project"


def objects(section: bytes, flags: int) -> bytes:
    """A small ELF file with one section and one for its name."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    table = 64 + len(section) + 16
    struct.pack_into("<Q", header, 40, table)
    struct.pack_into("<HHH", header, 58, 64, 2, 1)
    names = b"\0.debug_str\0".ljust(16, b"\0")
    rows = struct.pack("<IIQQQQIIQQ", 1, 1, flags, 0, 64, len(section), 0, 0, 0, 0)
    rows += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64 + len(section), 16, 0, 0, 0, 0)
    return bytes(header) + section + names + rows


def compressed(content: bytes) -> bytes:
    return objects(struct.pack("<IIQQ", 1, 0, len(content), 1) + zlib.compress(content), 0x800)


def found(root: Path, *outputs: Output, out: bytes = b"") -> Held:
    captured = Captured()
    captured.add(1, out)
    held = held_by([SECRET, b"project"], captured, root, outputs)
    captured.close()
    return held


@pytest.mark.parametrize(
    ("held", "binding"),
    [
        (Held(frozenset(), False), []),
        (Held(frozenset({b"project"}), False), [b"name", b"name", b"project"]),
        (Held(frozenset({b"name"}), False), [b"name", b"name", b"project"]),
        (Held(frozenset({b"project", SECRET}), False), [b"place", SECRET, b"/tmp/scratch/1", b"/link/name"]),
        (Held(frozenset({b"/tmp/scratch/1"}), False), [b"place", SECRET, b"/tmp/scratch/1", b"/link/name"]),
        (Held(frozenset(), True), [b"place", SECRET, b"/tmp/scratch/1", b"/link/name"]),
    ],
)
def test_a_result_is_bound_to_what_it_holds(held: Held, binding: list[bytes]) -> None:
    assert WHERE.binding(held) == binding
    assert binding in list(WHERE.bindings())


def test_everything_that_was_made_is_searched(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100 + SECRET)
    (tmp_path / "link").symlink_to("/home/me/project/x")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/project.txt").touch()
    (tmp_path / "object").write_bytes(compressed(b"y" * 5000 + SECRET))
    (tmp_path / "damaged").write_bytes(objects(struct.pack("<IIQQ", 1, 0, 9, 1) + b"no stream", 0x800))
    (tmp_path / "packed").write_bytes(b"\x1f\x8b...")
    os.mkfifo(tmp_path / "pipe")
    both = frozenset({SECRET, b"project"})
    assert found(tmp_path, out=SECRET) == Held(both, False)
    assert found(tmp_path, Output("file", False)) == Held(both, False)
    assert found(tmp_path, Output("link", False)) == Held(both, False)
    assert found(tmp_path, Output("d", True)) == Held(frozenset({b"project"}), False)
    assert found(tmp_path, Output("object", False)) == Held(both, False)
    assert found(tmp_path, Output("damaged", False)) == Held(frozenset(), True)
    assert found(tmp_path, Output("packed", False)) == Held(frozenset(), True)
    assert found(tmp_path, Output("pipe", False)) == Held(frozenset(), True)


@pytest.mark.parametrize("how", ["zlib", "zlib-gnu"])
def test_sections_that_a_compiler_compressed_are_found_in_objects_and_archives(tmp_path: Path, how: str) -> None:
    name = "n" * 200
    source = "".join(f"int {name}_{number};\n" for number in range(30))
    (tmp_path / "a.c").write_text(source)
    subprocess.run(["gcc", "-g", f"-gz={how}", "-c", "a.c"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "rc", "a.a", "a.o"], cwd=tmp_path, check=True)
    for made in ("a.o", "a.a"):
        content = memoryview((tmp_path / made).read_bytes())
        sections = list(compressed_sections(content))
        assert any(f"{name}_29".encode() in section for section in sections), made


@given(st.binary(max_size=300), st.data())
def test_damaged_objects_are_read_or_refused_and_nothing_else(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(compressed(content))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(6, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(SectionUnreadable):
        list(compressed_sections(memoryview(bytes(damaged))))


def test_an_object_whose_table_lies_nowhere_cannot_be_read() -> None:
    damaged = bytearray(compressed(b""))
    damaged[40:48] = b"\xff" * 8
    with pytest.raises(SectionUnreadable):
        list(compressed_sections(memoryview(damaged)))


@given(st.binary(max_size=60), st.lists(st.binary(min_size=1, max_size=4), max_size=4), st.integers(1, 7))
def test_texts_are_found_wherever_blocks_end(content: bytes, texts: list[bytes], size: int) -> None:
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    assert held_by_blocks(frozenset(texts), blocks) == {text for text in texts if text in content}


def test_values_that_are_searched_are_those_that_do_not_count() -> None:
    environment = {"WINDOWID": "12345", "SHLVL": "1", "MODE": "counts", "SSH_AUTH_SOCK": "/run/x", "DISPLAY": "host:0"}
    assert session_values(environment, {"DISPLAY": "host:0", "MODE": "counts"}) == {b"12345": "WINDOWID"}


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (Held(frozenset(), False), ""),
        (Held(frozenset({SECRET}), False, {SECRET: "out"}), "out holds the path /home/me/project"),
        (Held(frozenset({b"project"}), False, {b"project": "stdout"}), "stdout holds the name project"),
        (Held(frozenset({b"project"}), True, {b"": "out.gz"}), "out.gz is compressed and may hold its path"),
    ],
)
def test_it_is_said_why_a_result_is_bound(held: Held, reason: str) -> None:
    assert WHERE.reason(held) == reason
