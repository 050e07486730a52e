"""What keys and scopes may be called: they are shown as directories, typed in shells and sent over networks."""

from __future__ import annotations

import unicodedata

from tvfs.errors import TaskVaultError

MAX_NAME_BYTES = 255
"""In UTF-8: the longest name that a directory entry can have."""


class NameInvalid(TaskVaultError):
    """A key or scope that cannot be used."""

    def __init__(self, what: str, name: str, reason: str) -> None:
        super().__init__(f"The {what} {ascii(name) if len(name) <= 80 else ascii(name[:80]) + '…'} {reason}.")
        self.name = name


def check_key(key: str) -> str:
    """Return the key; raise `NameInvalid` unless it can be the name of a directory."""
    _check_text("key", key)
    if "/" in key:
        raise NameInvalid("key", key, "contains '/'; use '-' or ':' instead, or put the first part into --scope")
    _check_part("key", key, key)
    return key


def check_scope(scope: str) -> str:
    """Return the scope; raise `NameInvalid` unless its parts between '/' can be names of directories."""
    _check_text("scope", scope)
    for part in scope.split("/"):
        if not part:
            raise NameInvalid("scope", scope, "has an empty part; write it like `main` or `pr/123`, without other '/'")
        _check_part("scope", scope, part)
    return scope


def _check_text(what: str, name: str) -> None:
    if not name:
        raise NameInvalid(what, name, "is empty; give it at least one character")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise NameInvalid(what, name, "is not valid UTF-8; use text") from None
    if length > MAX_NAME_BYTES:
        raise NameInvalid(
            what, name, f"has {length} bytes and at most {MAX_NAME_BYTES} are possible; shorten it, or use its hash"
        )
    # Nothing that is printable is a control character, and that is asked of the whole text at once.
    if not name.isprintable() and any(unicodedata.category(character) == "Cc" for character in name):
        raise NameInvalid(what, name, "contains a control character; use printable text")


def _check_part(what: str, name: str, part: str) -> None:
    if part in (".", ".."):
        raise NameInvalid(what, name, f"has the part {part!r}, which means a directory to every tool; choose another")
