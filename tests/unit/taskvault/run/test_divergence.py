"""Where two results differ, and why."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest

from taskvault.run.divergence import Cause, Divergence, compare_content

NOW_S = 1_790_000_000.0
"""In September 2026."""


def compared(stored: bytes, made: bytes) -> Divergence | None:
    return compare_content("out", io.BytesIO(stored), io.BytesIO(made), now_s=NOW_S)


def test_what_is_the_same_does_not_differ() -> None:
    assert compared(b"", b"") is None
    assert compared(bytes(3 << 20), bytes(3 << 20)) is None


@pytest.mark.parametrize("at", [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2_500_000])
def test_the_first_byte_that_differs_is_named(at: int) -> None:
    content = bytearray(3_000_000)
    made = bytearray(content)
    made[at] = 1
    made[-1] = 1
    found = compared(bytes(content), bytes(made))
    assert found is not None
    assert found.offset == at


@pytest.mark.parametrize(("stored", "made"), [(b"abc", b"abcd"), (b"abcd", b"abc")])
def test_one_that_goes_on_differs_where_the_other_ends(stored: bytes, made: bytes) -> None:
    assert compared(stored, made) == Divergence("out", "differs", 3)


def gzip_header(time_s: int) -> bytes:
    return b"\x1f\x8b\x08\x00" + struct.pack("<I", time_s) + b"\x02\x03rest of it"


CAUSES: dict[str, tuple[bytes, bytes, Cause]] = {
    "clock": (b"built at 12:04:59 by make", b"built at 12:05:10 by make", Cause.TIME),
    "date": (b"made 2026-09-20, all well", b"made 2026-09-21, all well", Cause.TIME),
    "month": (b"\x7fELF Sep 20 2026 x", b"\x7fELF Sep 21 2026 x", Cause.TIME),
    "epoch": (b"stamp=1789990000;", b"stamp=1790000000;", Cause.TIME),
    "gzip": (gzip_header(1_789_999_000), gzip_header(1_790_000_000), Cause.TIME),
    "big-endian": (struct.pack(">I", 1_789_999_000) + b"x", struct.pack(">I", 1_790_000_000) + b"x", Cause.TIME),
    "path": (b"source=/home/a/project/x.c\n", b"source=/home/b/project/x.c\n", Cause.PATH),
    "order": (b"one\ntwo\nthree\n", b"two\none\nthree\n", Cause.ORDER),
    "uuid": (b"id: 3f2b8c1d90aa\n", b"id: 91cd07e4b2f6\n", Cause.RANDOMNESS),
    "process": (b"pid 12345 ended", b"pid 22877 ended", Cause.RANDOMNESS),
    "text": (b"the answer is yes", b"the answer is no", Cause.UNKNOWN),
    "binary": (b"\x00\x01\x02\x03\x04\x05\x06\x07", b"\x00\x01\x02\x03\xf4\xf5\xf6\xf7", Cause.UNKNOWN),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_likely_cause_is_named(name: str) -> None:
    stored, made, cause = CAUSES[name]
    found = compared(stored, made)
    assert found is not None
    assert found.cause is cause


@pytest.mark.parametrize("filler", [bytes, lambda n: b"x\n" * (n // 2)])
def test_a_cause_far_into_a_file_is_found_too(filler: Callable[[int], bytes]) -> None:
    for stored, made, cause in CAUSES.values():
        if cause is not Cause.ORDER:
            found = compared(filler(2_000_000) + stored, filler(2_000_000) + made)
            assert found is not None
            assert found.cause is cause


def test_it_is_said_in_words() -> None:
    assert str(compared(b"at 12:04:59", b"at 12:05:10")) == "out differs at byte 7, probably for a time"
    assert str(Divergence("dir/x", "is not there")) == "dir/x is not there"
