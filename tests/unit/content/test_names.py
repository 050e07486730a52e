from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.content.names import NameInvalid, escape, unescape

names = st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
names |= st.binary(max_size=10).map(lambda rest: b"\x01" + rest)


@given(names)
def test_every_name_comes_back_from_its_text(name: bytes) -> None:
    text = escape(name)
    text.encode()  # it is text that a protobuf string can hold
    assert unescape(text) == name


@given(names, names)
def test_different_names_have_different_texts(first: bytes, second: bytes) -> None:
    assert (escape(first) == escape(second)) == (first == second)


@given(st.text(max_size=20).map(lambda text: "\x01" + text))
def test_a_marked_text_is_taken_only_if_escaping_gives_it(text: str) -> None:
    try:
        name = unescape(text)
    except NameInvalid:
        return
    assert escape(name) == text


def test_an_ordinary_name_stands_for_itself() -> None:
    assert escape("Straße 100%.txt".encode()) == "Straße 100%.txt"


def test_a_latin_1_name_is_escaped_as_documented() -> None:
    assert escape(b"caf\xe9 100%") == "\x01caf%E9 100%25"


def test_a_name_that_begins_with_the_mark_is_escaped() -> None:
    assert escape(b"\x01a") == "\x01%01a"


@pytest.mark.parametrize("text", ["\x01", "\x01plain", "\x01%e9", "\x01%E", "\x01%+9", "\x01% 9", "\x01é", "\x01%41"])
def test_a_text_that_no_name_has_is_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        unescape(text)
