"""The files in `packs/`: each is the pack that its name says, of this vault.

A pack under another's name, or none, gets its own again if that is free; everything else is set aside, and kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tvfs.catalog.catalog import Family
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.pack_scan import header_at
from tvfs.packs.pack_row import pack_key
from tvfs.packs.record import PACK_HEADER_BYTES, PackDamaged, PackHeader, decode_pack_header, encode_pack_header

CHECK = "pack files"
SET_ASIDE = "set-aside"
"""Directory in HOME of files that do not belong to the vault."""
_NAME = re.compile(r"([0-9a-f]{16})\.pack")


def check_pack_files(exam: Examination) -> Iterator[Step]:
    """Yield what gives packs their names, sets foreign files aside and makes headers right."""
    misplaced = _misplaced(exam)
    yield from _put_in_place(exam, misplaced)
    for name in sorted(os.listdir(exam.layout.packs)):
        path = exam.layout.packs / name
        if path in misplaced.values():
            continue
        match = _NAME.fullmatch(name)
        if match is None or not path.is_file() or path.is_symlink():
            remedy = f"moved to {SET_ASIDE}/{name}"
            yield Step(Finding(CHECK, f"packs/{name}", "it is no pack", remedy), act=set_aside(exam, path))
            continue
        yield from _check_header(exam, path, int(match[1], 16))


def _misplaced(exam: Examination) -> dict[int, Path]:
    """Return, by number, the files of packs that are wanted and whose name is another and can be put right."""
    found: dict[int, Path] = {}
    at_home: set[int] = set()
    for name in sorted(os.listdir(exam.layout.packs)):
        path = exam.layout.packs / name
        header = _header_of(path)
        if header is None or header.vault_uuid != exam.superblock.uuid:
            continue
        if path == exam.layout.pack(header.number):
            at_home.add(header.number)
        elif exam.rebuilt or exam.catalog.get(Family.PACK, pack_key(header.number)) is not None:
            found.setdefault(header.number, path)
    taken = set(found.values())
    # Where a name is taken by what may be that pack, with a damaged header, nothing is moved.
    return {
        number: path
        for number, path in found.items()
        if number not in at_home and (not exam.layout.pack(number).exists() or exam.layout.pack(number) in taken)
    }


def _put_in_place(exam: Examination, misplaced: dict[int, Path]) -> Iterator[Step]:
    if exam.dry:
        exam.packs.misplaced = dict(misplaced)
    for path in misplaced.values():
        match = _NAME.fullmatch(path.name)
        if match and int(match[1], 16) not in misplaced:
            exam.foreign_packs.add(int(match[1], 16))
    aside = {number: exam.layout.packs / f"{number:016x}.pack.misplaced" for number in misplaced}
    # All are taken out of each other's way first; a run that is killed in between finds them by their headers again.
    for number, path in misplaced.items():
        yield Step(act=partial(os.rename, path, aside[number]))
    for number, path in misplaced.items():
        target = exam.layout.pack(number)
        finding = Finding(CHECK, f"packs/{path.name}", f"it is pack {number:016x}", f"renamed to {target.name}")
        yield Step(finding, act=partial(os.rename, aside[number], target))


def _header_of(path: Path) -> PackHeader | None:
    if not path.is_file() or path.is_symlink():
        return None
    try:
        with path.open("rb") as file:
            return decode_pack_header(file.read(PACK_HEADER_BYTES))
    except (PackDamaged, OSError):
        return None


def _check_header(exam: Examination, path: Path, number: int) -> Iterator[Step]:
    where = f"pack {number:016x}"
    wanted = PackHeader(number, exam.superblock.uuid)
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        has_record = header_at(file.fileno(), PACK_HEADER_BYTES, length) is not None
        try:
            found = decode_pack_header(file.read(PACK_HEADER_BYTES))
        except PackDamaged as exc:
            # A writer that died before its first sync leaves a pack without a header, and nothing of it is committed.
            committed = exam.catalog.get(Family.PACK, pack_key(number)) is not None
            if committed or has_record:
                # The power may also have taken the header and left a record.
                finding = Finding(
                    CHECK, where, f"its header is damaged: {exc.reason}", "written anew",
                    after_stop=not (committed or exam.clean or exam.rebuilt),
                )  # fmt: skip
                yield Step(finding, act=_header_writer(path, wanted))
            return
    if found == wanted:
        return
    if found.vault_uuid != wanted.vault_uuid:
        what = f"it belongs to another vault, {found.vault_uuid.hex()}"
    else:
        what = f"it is a copy of pack {found.number:016x}"
    exam.foreign_packs.add(number)
    finding = Finding(CHECK, where, what, f"moved to {SET_ASIDE}/{path.name}")
    yield Step(finding, act=set_aside(exam, path))


def set_aside(exam: Examination, path: Path) -> Callable[[], None]:
    """Return what moves a file out of the way, to where nothing of it is lost."""

    def move() -> None:
        place = exam.layout.home / SET_ASIDE
        place.mkdir(mode=0o700, exist_ok=True)
        target = place / path.name
        attempt = 1
        while os.path.lexists(target):
            target, attempt = place / f"{path.name}.{attempt}", attempt + 1
        with suppress(FileNotFoundError):
            os.rename(path, target)

    return move


def _header_writer(path: Path, header: PackHeader) -> Callable[[], None]:
    def write() -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, encode_pack_header(header), 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    return write
