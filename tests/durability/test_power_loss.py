"""Power is lost between system calls of a real daemon, in short; the long proof is `python -m tests.durability`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import pytest

from tests.durability.broken_daemon import BREAKERS
from tests.durability.disk import Disk, Fate
from tests.durability.ledger import Line, after
from tests.durability.power_loss import REPOSITORY, assert_all_is_recorded, lose_power, recorded
from tests.durability.recording import Call, Moment, moments, record
from tests.vaults_in_order import check, wrong
from tvfs.packs.pack_directory import PackDirectory
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}"}


@pytest.mark.kernel
def test_power_may_be_lost_at_any_moment_and_nothing_that_was_promised_is(seed: int) -> None:
    with recorded(seed, 50) as recording:
        assert_all_is_recorded(recording)
        outcome = lose_power(recording, cuts=3, seed=seed)
    assert outcome.promises > 20
    assert not outcome.wrong, outcome.wrong[:9]


@pytest.mark.kernel
@pytest.mark.parametrize("broken", [pytest.param(name, marks=pytest.mark.slow) for name in BREAKERS])
def test_a_daemon_that_leaves_one_sync_out_is_noticed(broken: str) -> None:
    with recorded(3, 60, broken=broken) as recording:
        outcome = lose_power(recording, cuts=10, seed=3, fates=(Fate.DROPPED, Fate.TORN))
    assert outcome.wrong


def test_a_first_pack_whose_mark_was_lost_is_what_a_power_loss_leaves(tmp_path: Path) -> None:
    superblock = create_vault(tmp_path / "home", settings=VaultSettings(), registry=PluginRegistry())
    os.close(PackDirectory(tmp_path / "home" / "packs", superblock.uuid).create(1))
    report = check(tmp_path / "home")
    assert report is not None
    assert wrong(report) == []
    assert "counter next_pack" in [finding.where for finding in report.findings]


def test_what_says_that_there_is_a_vault_lasts_once_it_was_made(tmp_path: Path) -> None:
    making = f"""
from pathlib import Path
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings
create_vault(Path("{tmp_path}/place/home"), settings=VaultSettings(), registry=PluginRegistry())
"""
    (tmp_path / "place").mkdir()
    record([sys.executable, "-c", making], tmp_path / "trace", env=ENVIRONMENT)
    disk = Disk(tmp_path / "place")
    for moment in moments(tmp_path / "trace", tmp_path / "place"):
        disk(moment)
    kept = left(disk, tmp_path / "left", Fate.DROPPED)
    made = {name: (tmp_path / "place" / name).read_bytes() for name in ("home/format", "home/superblock")}
    assert {name: kept[name] for name in made} == made


def disk_after(*calls: Call) -> Disk:
    disk = Disk(Path("/home"))
    for number, call in enumerate(calls):
        disk(Moment(call, number, ends=False))
        disk(Moment(call, number, ends=True))
    return disk


def left(disk: Disk, to: Path, fate: Fate) -> dict[str, bytes]:
    disk.leave(to, fate, Random(1))
    return {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}


MADE = Call("openat", ("/home/a",), b"", ("O_RDWR|O_CREAT", "0600"))
WRITTEN = Call("pwrite64", ("/home/a",), b"12345", ("5", "0"))
SYNCED = Call("fdatasync", ("/home/a",), b"", ())
NAMED = Call("fsync", ("/home",), b"", ())


@pytest.mark.parametrize(
    ("calls", "dropped"),
    [
        ((MADE, WRITTEN), {}),
        ((MADE, WRITTEN, SYNCED), {}),
        ((MADE, WRITTEN, NAMED), {"a": b""}),
        ((MADE, WRITTEN, SYNCED, NAMED), {"a": b"12345"}),
        ((MADE, WRITTEN, SYNCED, NAMED, Call("ftruncate", ("/home/a",), b"", ("2",))), {"a": b"12345"}),
        ((MADE, SYNCED, NAMED, Call("rename", ("/home/a", "/home/b"), b"", ())), {"a": b""}),
        ((MADE, SYNCED, NAMED, Call("rename", ("/home/a", "/home/b"), b"", ()), NAMED), {"b": b""}),
        ((MADE, WRITTEN, SYNCED, NAMED, Call("unlink", ("/home/a",), b"", ())), {"a": b"12345"}),
    ],
)
def test_the_disk_forgets_what_was_not_synced_and_nothing_else(
    tmp_path: Path, calls: tuple[Call, ...], dropped: dict[str, bytes]
) -> None:
    assert left(disk_after(*calls), tmp_path / "left", Fate.DROPPED) == dropped


def test_a_write_that_comes_during_a_sync_is_not_covered_by_it(tmp_path: Path) -> None:
    disk = disk_after(MADE, NAMED)
    disk(Moment(SYNCED, 10, ends=False))
    disk(Moment(WRITTEN, 11, ends=False))
    disk(Moment(WRITTEN, 11, ends=True))
    disk(Moment(SYNCED, 10, ends=True))
    assert left(disk, tmp_path / "left", Fate.DROPPED) == {"a": b""}
    assert left(disk, tmp_path / "kept", Fate.KEPT) == {"a": b"12345"}


def test_what_a_program_did_to_files_is_recorded_in_order(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    script = f"cd {place} && echo one > {place}/a && mv {place}/a {place}/b && rm {place}/b"
    record(["sh", "-c", script], tmp_path / "trace")
    ended = [moment.call for moment in moments(tmp_path / "trace", place) if moment.ends]
    told = [(call.name.removesuffix("2").removesuffix("at"), call.content) for call in ended]
    assert told == [("open", b""), ("write", b"one\n"), ("rename", b""), ("unlink", b"")]


@pytest.mark.parametrize(
    ("found", "in_order"),
    [({"a": b"old"}, True), ({"a": b"new"}, True), ({"a": b"nld"}, False), ({"a": None}, False)],
)
def test_between_two_announcements_the_old_and_the_new_are_right(
    found: dict[str, bytes | None], in_order: bool
) -> None:
    ledger = after([Line(False, {"a": b"old"}), Line(True, {"a": b"old"}), Line(False, {"a": b"new"})])
    assert (ledger.wrong(found.__getitem__) == []) is in_order


@pytest.mark.parametrize(
    ("found", "in_order"),
    [(b"old", True), (b"new longer", True), (b"nld", True), (b"new l\0\0\0er", True), (b"xld", False), (None, False)],
)
def test_what_is_written_in_place_may_be_there_in_part(found: bytes | None, in_order: bool) -> None:
    ledger = after([Line(True, {"a": b"old"}), Line(False, {"a": b"new longer"}, in_place=True)])
    assert (ledger.wrong({"a": found}.__getitem__) == []) is in_order


def test_a_file_that_is_renamed_is_at_one_of_its_names() -> None:
    moving = [Line(True, {"a": b"x", "b": None}), Line(False, {"a": None, "b": b"x"}, one_of=["a", "b"])]
    assert after(moving).wrong({"a": None, "b": None}.__getitem__)
    assert not after(moving).wrong({"a": b"x", "b": None}.__getitem__)
