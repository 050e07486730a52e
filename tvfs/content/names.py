"""Names that are not UTF-8, as text: the canonical tree holds text only, a directory may hold any bytes.

A name that is UTF-8 and does not begin with U+0001 stands for itself.  Any other is U+0001 followed by its bytes, each
that is not printable ASCII, or is `%`, written as `%XX`.  No two byte strings share a text.
"""

from __future__ import annotations

from tvfs.errors import TaskVaultError

_MARK = "\x01"
_BYTE_TO_TEXT = [chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in range(256)]


class NameInvalid(TaskVaultError):
    """A text in a tree begins like an escaped name but was not made by escaping one."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not the escaped form of any name; whoever made the tree must escape it anew.")
        self.text = text


def escape(name: bytes) -> str:
    """Return the text that stands for `name`; different names give different texts."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return _escape_bytes(name)
    return _escape_bytes(name) if text.startswith(_MARK) else text


def unescape(text: str) -> bytes:
    """Return the name that `text` stands for; raise `NameInvalid` for a text that `escape` never returns."""
    if not text.startswith(_MARK):
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise NameInvalid(text) from None
    name = _unescape_bytes(text)
    if escape(name) != text:
        raise NameInvalid(text)
    return name


def _escape_bytes(name: bytes) -> str:
    return _MARK + "".join(_BYTE_TO_TEXT[byte] for byte in name)


def _unescape_bytes(text: str) -> bytes:
    first, *rest = text[1:].split("%")
    try:
        parts = [bytes.fromhex(part[:2]) + part[2:].encode("ascii") for part in rest]
        return first.encode("ascii") + b"".join(parts)
    except ValueError:  # UnicodeEncodeError is one
        raise NameInvalid(text) from None
