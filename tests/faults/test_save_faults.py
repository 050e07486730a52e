"""What may happen to `tv cache save` and the daemon behind it, both real."""

from __future__ import annotations

import filecmp
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskvault.protocol.messages import GetStatistics
from tests.daemon.conftest import ROOT, Daemon
from tests.faults.conftest import du
from tests.thinned import thinned
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row
from tvfs.digest import ChunkId
from tvfs.packs.pack_row import decode_pack_row, pack_number
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.vault import open_vault


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "vault")
    yield made
    made.clean_up()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small files, and one of several packs, none of which compresses: several commits."""
    root = tmp_path / "tree"
    (root / "many").mkdir(parents=True)
    for number in range(40):
        (root / "many" / f"{number}").write_bytes(random.Random(number).randbytes(3000 * number))
    (root / "large").write_bytes(random.Random("large").randbytes(72 << 20))
    return root


def tv(daemon: Daemon, *words: str, armed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.client_driver", armed, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/plugins", "TASKVAULT_HOME": str(daemon.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_given_back(daemon: Daemon, key: str, tree: Path, place: Path) -> None:
    assert tv(daemon, "cache", "get", key, "--to", str(place)).returncode == 0
    names = [str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()]
    assert len(names) == sum(path.is_file() for path in (place / tree.name).rglob("*"))
    assert filecmp.cmpfiles(tree, place / tree.name, names, shallow=False)[0] == names


async def check_everything(home: Path) -> None:
    """Every chunk is readable, the figures of every pack are right, and the log of changes is whole."""
    async with open_vault(home, PluginRegistry()) as vault:
        assert not vault.recovery.damaged
        live: dict[int, int] = {}
        for chunk_id, value in list(vault.catalog.scan(Family.CHUNK)):
            row = decode_chunk_row(value)
            assert row.state is ChunkState.LIVE
            assert await vault.check_chunk(ChunkId(chunk_id))
            live[row.location.pack] = live.get(row.location.pack, 0) + 56 + row.location.stored_bytes
        packs = {pack_number(key): decode_pack_row(value) for key, value in vault.catalog.scan(Family.PACK)}
        assert {number: pack.live_bytes for number, pack in packs.items()} == live
        assert {number: pack.committed_bytes for number, pack in packs.items()} == {
            number: vault.packs.size(number) for number in vault.packs.numbers()
        }
        assert vault.audit.verify() >= 2
        assert vault.usage.report().total == du(home)


IN_THE_CLIENT = [
    "commit.before_append@40",
    "commit.after_append@1",
    "commit.after_pack_sync@1",
    "commit.after_append@2",
]
IN_THE_DAEMON = ["commit.after_batch@1", "commit.after_batch@2", "commit.after_wal_sync@1", "commit.after_wal_sync@2"]


@pytest.mark.parametrize("point", thinned([*IN_THE_CLIENT, *IN_THE_DAEMON], one_in=4))
async def test_a_save_that_is_killed_is_not_there_and_can_be_done_again(
    daemon: Daemon, tree: Path, tmp_path: Path, point: str
) -> None:
    name, _, nth = point.partition("@")
    armed, in_client = f"{name}=kill@{nth}", point in IN_THE_CLIENT
    daemon.start()
    before = tree / "many"
    assert tv(daemon, "cache", "save", "before", str(before)).returncode == 0
    assert daemon.stop() == 0
    daemon.start(env={} if in_client else {"TASKVAULT_FAILPOINTS": armed})
    killed = tv(daemon, "cache", "save", "key", str(tree), armed=armed if in_client else "")
    if in_client:
        assert killed.returncode == -signal.SIGKILL
        with daemon.client() as client:
            while (figures := client.call(GetStatistics()).figures)["reserved_bytes"]:
                pass  # until the daemon has noticed
            assert figures["leased_chunks"] == 0
        daemon.kill()
    else:
        assert killed.returncode == 3
        assert killed.stderr.startswith("tv: No daemon answers")
        assert daemon.wait() == -signal.SIGKILL
    assert daemon.start()["ok"]
    assert tv(daemon, "cache", "show", "key").returncode == 1
    assert_given_back(daemon, "before", before, tmp_path / "before")
    assert tv(daemon, "cache", "save", "key", str(tree)).returncode == 0
    assert_given_back(daemon, "key", tree, tmp_path / "back")
    assert daemon.stop() == 0
    await check_everything(daemon.home)


@pytest.mark.slow
async def test_a_save_larger_than_the_vault_is_refused_and_everything_else_works(
    daemon: Daemon, tree: Path, tmp_path: Path
) -> None:
    assert daemon.start(env={"TASKVAULT_VAULT_CAPACITY_BYTES": "64M"})["ok"]
    small = tree / "many"
    # Pinned, or it would give way to what does not fit either.
    assert tv(daemon, "cache", "save", "--pin", "small", str(small)).returncode == 0
    refused = tv(daemon, "cache", "save", "large", str(tree))
    assert refused.returncode == 5
    assert refused.stderr.startswith("tv: The vault has room for")
    assert refused.stderr.count("\n") == 1
    assert tv(daemon, "cache", "show", "large").returncode == 1
    assert du(daemon.home) <= 64 << 20
    assert_given_back(daemon, "small", small, tmp_path / "back")
    assert tv(daemon, "cache", "save", "again", str(small)).returncode == 0
    assert daemon.stop() == 0
    await check_everything(daemon.home)


def test_two_saves_of_one_tree_at_once_are_both_whole(daemon: Daemon, tree: Path, tmp_path: Path) -> None:
    daemon.start()
    words = [sys.executable, "-m", "tests.faults.client_driver", "", "cache", "save"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/plugins", "TASKVAULT_HOME": str(daemon.home)}
    both = [subprocess.Popen([*words, key, tree], cwd=ROOT, env=env, stdout=subprocess.DEVNULL) for key in ("a", "b")]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    for key in ("a", "b"):
        assert_given_back(daemon, key, tree, tmp_path / key)
    with daemon.client() as client:
        assert client.call(GetStatistics()).figures["reserved_bytes"] == 0
    assert daemon.stop() == 0


def test_damage_is_an_error_and_healed_by_saving_once_more(daemon: Daemon, tree: Path, tmp_path: Path) -> None:
    daemon.start()
    assert tv(daemon, "cache", "save", "key", str(tree)).returncode == 0
    daemon.kill()
    chance = random.Random(5)
    pack = max((daemon.home / "packs").iterdir(), key=lambda path: path.stat().st_size)
    with pack.open("r+b") as file:
        for _ in range(9):
            place = chance.randrange(40, pack.stat().st_size)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
    daemon.start()
    refused = tv(daemon, "cache", "get", "key", "--to", str(tmp_path / "bad"))
    assert refused.returncode == 5
    assert "damaged" in refused.stderr
    assert not (tmp_path / "bad").exists()
    assert tv(daemon, "cache", "save", "again", str(tree)).returncode == 0
    assert_given_back(daemon, "key", tree, tmp_path / "back")
    assert daemon.stop() == 0
