from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.vault.names import NameInvalid, check_key, check_scope

BAD_EVERYWHERE = ["", "a" * 256, "é" * 128, "a\0b", "a\nb", "\x7f", "\x85", "a\udcffb", ".", ".."]


@pytest.mark.parametrize("key", [*BAD_EVERYWHERE, "a/b", "/", "/a"])
def test_a_key_that_cannot_be_a_directory_name_is_refused(key: str) -> None:
    with pytest.raises(NameInvalid, match=r"^The key .*\.$"):
        check_key(key)


@pytest.mark.parametrize("scope", [*BAD_EVERYWHERE, "/", "a/", "/a", "a//b", "a/../b", "a/.", "../a"])
def test_a_scope_with_a_part_that_cannot_be_a_directory_name_is_refused(scope: str) -> None:
    with pytest.raises(NameInvalid, match=r"^The scope .*\.$"):
        check_scope(scope)


@pytest.mark.parametrize("key", ["a", "a" * 255, "é" * 127, "...", ".a", "a b", "linux-x86_64:deps@1.0", "日本"])
def test_other_keys_are_fine(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("scope", ["main", "pr/123", "a/b/c", "a" * 255])
def test_other_scopes_are_fine(scope: str) -> None:
    assert check_scope(scope) == scope


@given(st.text(max_size=300))
def test_what_is_accepted_fits_into_one_directory_entry_and_back(name: str) -> None:
    try:
        encoded = check_key(name).encode()
    except NameInvalid:
        return
    assert 1 <= len(encoded) <= 255
    assert b"/" not in encoded
    assert b"\0" not in encoded
    assert encoded.decode() == name
