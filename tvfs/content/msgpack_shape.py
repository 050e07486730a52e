"""How many objects a msgpack text holds, counted without making any of them.

Sixteen mebibytes can hold sixteen million objects, which take a gigabyte and a second of everybody's interpreter to
make: whoever takes msgpack from others counts first, in a thread.
"""

from __future__ import annotations

from tvfs.errors import TaskVaultError

UNCOUNTED_BYTES = 1 << 20
"""What is shorter need not be counted: the worst that it can be takes 25 MB and a tenth of a second."""
_DEEPEST = 64
"""Nested containers; nothing that we store or say nests more than eight."""


class TooManyObjects(TaskVaultError):
    """A msgpack text is not what it may be."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"A message cannot be taken: {reason}; send it in several parts.")
        self.reason = reason


def _table() -> tuple[list[int], list[int], list[int]]:
    """Return, by first byte: bytes to skip beside it, bytes of a length that follows, objects inside an element."""
    skip, length_bytes, inside = [0] * 256, [0] * 256, [0] * 256
    for byte in range(0x80, 0x90):
        inside[byte] = 2 * (byte & 15)
    for byte in range(0x90, 0xA0):
        inside[byte] = byte & 15
    for byte in range(0xA0, 0xC0):
        skip[byte] = byte & 31
    for byte, size in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4)):
        length_bytes[byte] = size
    for byte, size in ((0xC7, 1), (0xC8, 2), (0xC9, 4)):  # extensions: a type byte after the length
        length_bytes[byte], skip[byte] = size, 1
    for byte, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8), (0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        skip[byte] = size
    for byte, size in ((0xCA, 4), (0xCB, 8), (0xD4, 2), (0xD5, 3), (0xD6, 5), (0xD7, 9), (0xD8, 17)):
        skip[byte] = size
    return skip, length_bytes, inside


_SKIP, _LENGTH_BYTES, _INSIDE = _table()
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Arrays and maps that say how long they are: bytes of their length, objects an element."""


def check_shape(text: bytes | bytearray | memoryview, most_objects: int) -> int:
    """Return how many objects there are; raise `TooManyObjects` for more, for too deep nesting and for a torn text.

    About 0.3 µs an object; containers are counted as they announce themselves, so none is believed.
    """
    skip, length_bytes, inside = _SKIP, _LENGTH_BYTES, _INSIDE
    position, end, count = 0, len(text), 0
    waiting = [1]
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        if position >= end:
            raise TooManyObjects("it ends too early")
        waiting[-1] -= 1
        count += 1
        if count > most_objects:
            raise TooManyObjects(f"it holds more than {most_objects} values")
        byte = text[position]
        position += 1 + skip[byte]
        size = length_bytes[byte]
        if size:
            at = position - skip[byte]
            position += size + int.from_bytes(text[at : at + size], "big")
            continue
        within = inside[byte]
        if byte in _CONTAINERS:
            size, each = _CONTAINERS[byte]
            within = each * int.from_bytes(text[position : position + size], "big")
            position += size
        if within:
            if within > end - position:
                raise TooManyObjects("it ends too early")
            if len(waiting) > _DEEPEST:
                raise TooManyObjects(f"it nests more than {_DEEPEST} levels")
            waiting.append(within)
    if position > end:
        raise TooManyObjects("it ends too early")
    return count
