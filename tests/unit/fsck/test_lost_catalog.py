"""A catalog that is lost as a whole: what packs and staging files hold stays, however often fsck is killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
import trio

from tests.thinned import thinned
from tests.unit.fsck.sample_vault import REGISTRY, bytes_of, check, lines
from tvfs.catalog.catalog import Family
from tvfs.catalog.rocks import CatalogCorrupt, CatalogFailed, RocksCatalog
from tvfs.chunks.chunk_row import decode_chunk_row
from tvfs.fsck import opening, superblock
from tvfs.fsck.run import CHECKS
from tvfs.vault.recovery import REBUILDING, RepairUnfinished
from tvfs.vault.superblock import KEY, Superblock, decode_superblock, encode_superblock
from tvfs.vault.vault import open_vault

pytestmark = pytest.mark.damages_vault("its catalog is lost")


class Killed(BaseException):
    """The process ended here."""


def kill(*arguments: object) -> NoReturn:
    raise Killed


def content_of(home: Path) -> dict[str, bytes | str]:
    """Packs and staging files, by name, wherever in the vault they are."""
    return {Path(name).name: held for name, held in bytes_of(home).items() if ".pack" in name or is_staged(name)}


def is_staged(name: str) -> bool:
    return name.startswith(("staging/", "set-aside/"))


def chunks_of(home: Path) -> dict[bytes, object]:
    catalog = RocksCatalog(home / "meta")
    try:
        return {key: decode_chunk_row(row).location for key, row in catalog.scan(Family.CHUNK)}
    finally:
        catalog.close()


async def start(home: Path) -> None:
    async with open_vault(home, REGISTRY):
        pass


def test_packs_are_indexed_anew_and_staged_bytes_kept_when_the_catalog_is_gone(sample: Path) -> None:
    content, chunks = content_of(sample), chunks_of(sample)
    shutil.rmtree(sample / "meta")
    found = "\n".join(lines(check(sample)))
    assert "nothing leads to it → set aside" in found
    assert content_of(sample) == content
    assert chunks_of(sample) == chunks
    assert lines(check(sample)) == []


def superblock_of(home: Path) -> Superblock:
    catalog = RocksCatalog(home / "meta")
    try:
        return decode_superblock(catalog.get(Family.SYS, KEY))
    finally:
        catalog.close()


def test_a_vault_stays_what_it_was_made_as(sample: Path) -> None:
    before = superblock_of(sample)
    shutil.rmtree(sample / "meta")
    assert "its copy takes its place" in "\n".join(lines(check(sample)))
    assert superblock_of(sample) == before


@pytest.mark.parametrize("copy", [b"", b"nonsense", None, "of another vault"])
def test_without_its_copy_what_packs_tell_is_believed(sample: Path, copy: bytes | str | None) -> None:
    before, path = superblock_of(sample), sample / "superblock"
    if copy is None:
        path.unlink()
    else:
        other = encode_superblock(msgspec.structs.replace(before, uuid=bytes(16)))
        path.write_bytes(copy if isinstance(copy, bytes) else other)
    shutil.rmtree(sample / "meta")
    assert "are guesses" in "\n".join(lines(check(sample)))
    assert (superblock_of(sample).uuid, superblock_of(sample).hash) == (before.uuid, before.hash)


def test_a_start_without_a_catalog_makes_none_and_leaves_all_to_fsck(sample: Path) -> None:
    content, chunks = content_of(sample), chunks_of(sample)
    shutil.rmtree(sample / "meta")
    with pytest.raises(CatalogCorrupt, match="tv fsck"):
        trio.run(start, sample)
    assert not (sample / "meta").exists()
    check(sample)
    assert (content_of(sample), chunks_of(sample)) == (content, chunks)


def test_an_empty_catalog_is_a_lost_one(sample: Path) -> None:
    content, chunks = content_of(sample), chunks_of(sample)
    shutil.rmtree(sample / "meta")
    RocksCatalog(sample / "meta").close()
    check(sample)
    assert (content_of(sample), chunks_of(sample)) == (content, chunks)


@pytest.mark.parametrize("check_name", thinned(["superblock", *(each.name for each in CHECKS)]))
def test_a_run_that_is_killed_at_any_check_is_made_up_for_by_the_next(
    sample: Path, monkeypatch: pytest.MonkeyPatch, check_name: str
) -> None:
    content, chunks = content_of(sample), chunks_of(sample)
    shutil.rmtree(sample / "meta")
    with monkeypatch.context() as patch:
        if check_name == "superblock":
            patch.setattr(superblock, "check_superblock", kill)
        else:
            table = [each._replace(run=kill) if each.name == check_name else each for each in CHECKS]
            patch.setattr("tvfs.fsck.run.CHECKS", table)
        with pytest.raises(Killed):
            check(sample)
    with pytest.raises(RepairUnfinished, match="tv fsck"):
        trio.run(start, sample)
    check(sample)
    assert (content_of(sample), chunks_of(sample)) == (content, chunks)
    assert lines(check(sample)) == []
    trio.run(start, sample)


def test_a_dry_run_leaves_no_mark(sample: Path) -> None:
    shutil.rmtree(sample / "meta")
    before = bytes_of(sample)
    assert check(sample, dry=True).count
    assert bytes_of(sample) == before


@pytest.mark.parametrize("trouble", ["Too many open files", "Permission denied", "Cannot allocate memory"])
def test_a_catalog_that_cannot_be_opened_just_now_is_not_taken_for_a_damaged_one(
    sample: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    before = bytes_of(sample)

    def refuse(path: Path, **settings: object) -> Callable[[], None]:
        raise CatalogFailed(path, f"IO error: While opening a file: {trouble}")

    monkeypatch.setattr(opening, "RocksCatalog", refuse)
    with pytest.raises(CatalogFailed, match=trouble):
        check(sample)
    assert bytes_of(sample) == before


def test_the_mark_of_an_unfinished_repair_goes_with_the_last_batch(sample: Path) -> None:
    shutil.rmtree(sample / "meta")
    check(sample)
    catalog = RocksCatalog(sample / "meta")
    try:
        assert catalog.get(Family.SYS, REBUILDING) is None
    finally:
        catalog.close()
