"""A small vault with more saved into it than fits: the latest is there, the size is kept, and the counts are right."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from taskvault.client import Client
from taskvault.errors import Refused
from taskvault.fitting import LargerThanVault
from taskvault.protocol import messages as m
from taskvault.saved_paths import Keeping, save_under
from taskvault.snapshots import take_snapshot
from tests.daemon.conftest import Daemon
from tests.daemon.test_content import assert_same, read_back
from tests.faults.disk_sampler import sampled
from tests.vaults_in_order import assert_in_order

MIB = 1 << 20


@pytest.fixture
def small(make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon()
    daemon.start("--size", "64M")
    return daemon


def make_tree(root: Path, seed: int, size: int) -> Path:
    draw = random.Random(seed)
    (root / "below").mkdir(parents=True)
    (root / "below" / "large").write_bytes(draw.randbytes(size - size // 4))
    for number in range(20):
        (root / f"small-{number}").write_bytes(draw.randbytes(size // 80))
    return root


def save(client: Client, tree: Path, key: str, *, pinned: bool = False) -> m.Entry:
    return save_under(client, key, tree, sorted(os.listdir(tree)), scope="main", keeping=Keeping(pinned=pinned))


def save_pinned_until_refused(client: Client, tmp_path: Path) -> Refused:
    for number in range(100):
        try:
            save(client, make_tree(tmp_path / f"tree-{number}", number, 8 * MIB), f"key-{number}", pinned=True)
        except Refused as refused:
            return refused
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize("way", ["file", "directory"])
def test_what_is_larger_than_the_vault_is_refused_before_anything_is_evicted(
    small: Daemon, tmp_path: Path, way: str
) -> None:
    (tmp_path / "large").mkdir()
    file = tmp_path / "large" / "file"

    def store(client: Client) -> object:
        if way == "file":
            return save_under(client, "large", file.parent, ["file"], scope="main")
        return take_snapshot(client, file.parent, ["."], statuses=[os.lstat(file)])

    with small.client() as client:
        save(client, make_tree(tmp_path / "tree", 1, 6 * MIB), "kept")
        file.write_bytes(random.Random(2).randbytes(80 * MIB))
        with pytest.raises(LargerThanVault, match="64 MiB"):
            store(client)
    with small.client() as client:
        assert client.call(m.GetEntry("main", "kept")).entry is not None
        assert client.call(m.GetStatistics()).figures["evicted_entries"] == 0
        # As long, and it fits: the length alone says nothing.
        file.write_bytes(random.Random(3).randbytes(8 * MIB) * 10)
        store(client)
        assert client.call(m.GetEntry("main", "kept")).entry is not None


@pytest.mark.slow
def test_saves_go_on_for_ever_within_the_size(small: Daemon, tmp_path: Path) -> None:
    with sampled(small.home) as sampler:
        trees = [make_tree(tmp_path / f"tree-{number}", number, 6 * MIB) for number in range(16)]
        for number, tree in enumerate(trees):
            with small.client() as client:
                save(client, tree, f"key-{number}")
    with small.client() as client:
        figures = client.call(m.GetStatistics()).figures
        listed = {entry.key: entry for entry in client.call(m.ListEntries("main", None, 1000)).entries}
        assert "key-15" in listed
        assert "key-0" not in listed
        assert 3 <= len(listed) <= 9, "as many as fit, and no fewer than must be"
        for key, entry in listed.items():
            assert entry.snapshot is not None
            assert_same(read_back(client, entry.snapshot, tmp_path / f"back-{key}"), trees[int(key[4:])])
        done = client.call(m.CollectGarbage(check=True))
        assert done.findings == []
        assert figures["evicted_entries"] == 16 - len(listed)
        assert figures["used_bytes"] <= 64 * MIB
    assert sampler.highest_bytes <= 64 * MIB, sampler.at_highest
    assert small.stop() == 0
    assert [line["event"] for line in small.log() if line["level"] == "error"] == []
    assert_in_order(small.home)


def test_when_pins_fill_the_vault_a_save_fails_with_a_sentence_and_works_after_unpinning(
    small: Daemon, tmp_path: Path
) -> None:
    with small.client() as client:
        refused = save_pinned_until_refused(client, tmp_path)
        assert refused.kind == "VaultFull"
        assert all(word in str(refused) for word in ("pinned", "tv gc", "work/", "tv cache unpin"))
        kept = [entry.key for entry in client.call(m.ListEntries("main", None, 100)).entries]
        number = len(kept)
        assert 3 <= number <= 7
        assert kept == [f"key-{each}" for each in range(number)]
    with small.client() as client:
        for key in kept[:2]:
            client.call(m.SetPin("main", key, False))
        save(client, tmp_path / f"tree-{number}", "again")
        left = [entry.key for entry in client.call(m.ListEntries("main", None, 100)).entries]
        assert set(kept[2:]) | {"again"} <= set(left)
    assert small.stop() == 0
    assert_in_order(small.home)


def test_garbage_is_collected_on_request(small: Daemon, tmp_path: Path) -> None:
    with small.client() as client:
        for number in range(4):
            save(client, make_tree(tmp_path / f"tree-{number}", number, 3 * MIB), f"key-{number}")
        client.call(m.RemoveEntry("main", "key-0"))
        before = client.call(m.GetStatistics()).figures
    with small.client() as client:  # another: what the first one read and wrote was leased to it
        done = client.call(m.CollectGarbage(evict_bytes=1, check=True))
        after = client.call(m.GetStatistics()).figures
    assert done.evicted == 1
    assert done.findings == []
    # One entry was removed and one evicted; on a slow machine the background may have compacted some of it.
    assert before["used_packs_bytes"] - after["used_packs_bytes"] >= max(5 * MIB, done.freed_bytes)
    assert after["dead_bytes"] == 0
    assert after["collected_objects"] > 40
    assert small.stop() == 0
    assert_in_order(small.home)
