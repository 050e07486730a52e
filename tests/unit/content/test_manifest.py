from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.content.manifest import (
    MAX_HOLE_BYTES,
    MAX_ITEMS_UNPAGED,
    PAGE_MAX_ITEMS,
    PAGE_MIN_ITEMS,
    BuiltManifest,
    Extent,
    Manifest,
    ManifestBuilder,
    ManifestInvalid,
    build_manifest,
    extents_covering,
)
from tvfs.digest import HOLE, ChunkId
from tvfs.errors import FormatTooNew


def hash_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def items_of(count: int, seed: int = 1) -> list[tuple[int, bytes]]:
    chosen = random.Random(seed)
    return [(chosen.randint(1, 256 << 10), chosen.randbytes(32)) for _ in range(count)]


def all_extents(built: BuiltManifest, offset: int = 0, length: int | None = None) -> list[Extent]:
    pages = dict(built.pages)
    return extents_covering(
        Manifest(built.root), offset, built.size if length is None else length, lambda key: Manifest(pages[key])
    )


def merged(items: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for raw_bytes, chunk_id in items:
        if chunk_id == HOLE and found and found[-1][1] == HOLE:
            raw_bytes += found.pop()[0]
        found.append((raw_bytes, chunk_id))
    return found


items = st.lists(
    st.tuples(st.integers(1, 300), st.sampled_from([HOLE, *(bytes([n]) * 32 for n in (1, 2, 0x20))])), max_size=60
)


@given(items, st.integers(0, 5000), st.integers(0, 5000))
def test_the_extents_of_a_range_are_exactly_those_that_overlap_it(
    items: list[tuple[int, bytes]], offset: int, length: int
) -> None:
    built = build_manifest(items, hash_of)
    end = min(offset + length, built.size)
    expected, position = [], 0
    for raw_bytes, chunk_id in merged(items):
        if position < end and position + raw_bytes > offset and offset < end:
            expected.append(Extent(position, raw_bytes, ChunkId(chunk_id)))
        position += raw_bytes
    assert all_extents(built, offset, length) == expected


@pytest.mark.parametrize("count", [0, 1, MAX_ITEMS_UNPAGED, MAX_ITEMS_UNPAGED + 1, 5000])
def test_a_manifest_gives_back_its_items_and_is_paged_only_when_it_is_long(count: int) -> None:
    items = items_of(count)
    built = build_manifest(items, hash_of)
    assert [(extent.raw_bytes, extent.chunk_id) for extent in all_extents(built)] == items
    assert bool(built.pages) == (count > MAX_ITEMS_UNPAGED)
    assert all(hash_of(page) == key for key, page in built.pages)


@given(st.integers(0, 10**9), st.integers(0, 10**6))
def test_a_range_of_a_paged_manifest_opens_only_the_pages_it_needs(offset: int, length: int) -> None:
    built = build_manifest(ITEMS, hash_of)
    pages, opened = dict(built.pages), []

    def page_of(key: bytes) -> Manifest:
        opened.append(key)
        return Manifest(pages[key])

    found = extents_covering(Manifest(built.root), offset, length, page_of)

    flat = all_extents(built)
    assert found == [e for e in flat if e.offset < min(offset + length, built.size) and e.end > offset and length]
    assert len(opened) <= 2 + length // (PAGE_MIN_ITEMS * 64)


ITEMS = items_of(3000)


def test_page_lengths_are_within_their_bounds() -> None:
    built = build_manifest(items_of(20_000), hash_of)
    counts = [Manifest(page).count for _, page in built.pages]
    assert all(PAGE_MIN_ITEMS <= count <= PAGE_MAX_ITEMS for count in counts[:-1])


def test_versions_of_a_file_share_the_pages_of_what_did_not_change() -> None:
    items = items_of(20_000)
    changed = items[:7000] + items_of(3, seed=2) + items[7001:]
    before = {key for key, _ in build_manifest(items, hash_of).pages}
    after = {key for key, _ in build_manifest(changed, hash_of).pages}
    assert len(before) > 20
    assert len(after - before) <= 2


def test_pages_do_not_depend_on_how_the_builder_is_fed() -> None:
    items = [(100, bytes([n % 251, n // 251]) * 16) for n in range(1, 4000)]
    builder = ManifestBuilder(hash_of)
    for raw_bytes, chunk_id in items:
        builder.add(raw_bytes, chunk_id)
    built = builder.finish()
    starts = [0]
    for number, (_, chunk_id) in enumerate(items, 1):
        if number - starts[-1] >= PAGE_MAX_ITEMS or (number - starts[-1] >= PAGE_MIN_ITEMS and chunk_id[-1] == 0):
            starts.append(number)
    counts = [end - start for start, end in zip(starts, [*starts[1:], len(items)], strict=True)]
    assert [Manifest(page).count for _, page in built.pages] == counts


def test_a_hole_longer_than_an_item_can_say_takes_several() -> None:
    built = build_manifest([(1 << 40, HOLE), (5, b"x" * 32)], hash_of)
    extents = all_extents(built, (1 << 40) - 1, 3)
    assert [extent.chunk_id for extent in extents] == [HOLE, b"x" * 32]
    assert built.size == (1 << 40) + 5
    assert Manifest(built.root).count == (1 << 40) // MAX_HOLE_BYTES + 2


def test_the_encoding_is_the_documented_one() -> None:
    built = build_manifest([(3, b"a" * 32), (4, HOLE)], hash_of)
    assert built.root == bytes.fromhex("01000000000000020000000000000007") + (
        bytes.fromhex("00000003") + b"a" * 32 + bytes.fromhex("00000004") + bytes(32)
    )


DAMAGES = {
    "too short for a header": lambda encoded: encoded[:10],
    "cut off": lambda encoded: encoded[:-1],
    "too long": lambda encoded: encoded + b"x",
    "of a level that does not exist": lambda encoded: b"\x01\x07" + encoded[2:],
    "of another size than its items": lambda encoded: encoded[:8] + b"\0\0\0\0\0\0\0\x09" + encoded[16:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused(damage: str) -> None:
    encoded = build_manifest(items_of(3), hash_of).root
    with pytest.raises(ManifestInvalid):
        Manifest(DAMAGES[damage](encoded)).covering(0, 5)


def test_a_manifest_of_a_later_format_is_refused() -> None:
    with pytest.raises(FormatTooNew):
        Manifest(b"\x02" + build_manifest(items_of(1), hash_of).root[1:])


def test_a_page_that_covers_other_bytes_than_its_root_says_is_refused() -> None:
    built = build_manifest(ITEMS, hash_of)
    with pytest.raises(ManifestInvalid):
        extents_covering(Manifest(built.root), 0, 10, lambda key: Manifest(build_manifest(items_of(2), hash_of).root))
