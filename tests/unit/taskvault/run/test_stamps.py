"""Ninja's own files after a replay: the times of what was made are those that it was made at now."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvault.run.stamps import restamp, restamped_dependencies, restamped_log

LOG = b"# ninja log v5\n0\t12\t1700000000000000001\ta.o\tabc\n0\t12\t0\tphony\tabd\n3\t9\t17\telsewhere\tabe\n"


def known(name: bytes) -> int | None:
    return {b"a.o": 1 << 61, b"phony": 5}.get(name)


def record(name: bytes) -> bytes:
    padded = name + b"\0" * (-len(name) % 4)
    return struct.pack("<I", len(padded) + 4) + padded + b"\xff\xff\xff\xff"


def dependencies(number: int, stamp: int) -> bytes:
    return struct.pack("<IIQI", 1 << 31 | 16, number, stamp, 1)


DEPENDENCIES = b"# ninjadeps\n\4\0\0\0" + record(b"a.o") + record(b"a.h")


def test_the_log_gets_the_times_of_what_the_result_made() -> None:
    expected = LOG.replace(b"1700000000000000001", b"%d" % (1 << 61))
    assert restamped_log(LOG, known) == expected
    assert restamped_log(LOG.replace(b"v5", b"v4"), known) == LOG.replace(b"v5", b"v4")


def test_dependencies_get_the_times_of_what_the_result_made() -> None:
    assert restamped_dependencies(DEPENDENCIES + dependencies(0, 17), known) == DEPENDENCIES + dependencies(0, 1 << 61)
    for odd in (dependencies(1, 17), dependencies(9, 17), dependencies(0, 17)[:-1], b"\1"):
        assert restamped_dependencies(DEPENDENCIES + odd, known) == DEPENDENCIES + odd


@given(st.binary(max_size=60))
def test_what_is_damaged_is_as_long_as_before(content: bytes) -> None:
    damaged = DEPENDENCIES + content
    assert len(restamped_dependencies(damaged, known)) == len(damaged)
    assert restamped_log(LOG + content, lambda name: None) == LOG + content


def test_ninja_finds_nothing_to_do_where_all_was_made_anew(tmp_path: Path) -> None:
    if shutil.which("ninja") is None:
        pytest.skip("needs ninja")
    (tmp_path / "a.c").write_text('#include "a.h"\n')
    (tmp_path / "a.h").write_text("")
    rules = "rule cc\n command = gcc -MD -MF $out.d -c -o $out $in\n deps = gcc\n depfile = $out.d\n"
    (tmp_path / "build.ninja").write_text(
        f"{rules}rule copy\n command = cp $in $out\nbuild a.o: cc a.c\nbuild b: copy a.o\n"
    )
    subprocess.run(["ninja"], cwd=tmp_path, check=True, capture_output=True)
    for name in ("a.o", "b", ".ninja_log", ".ninja_deps"):
        os.utime(tmp_path / name, ns=(1 << 62, 1 << 62))
    for expected in ("[1/", "no work to do"):
        told = subprocess.run(["ninja", "-n"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        assert expected in told
        for name in (".ninja_log", ".ninja_deps"):
            restamp(tmp_path, name, tmp_path)
    assert os.stat(tmp_path / ".ninja_log").st_mtime_ns == 1 << 62
