"""Times to live, pins, prefixes and policies, as clients ask for them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from taskvault.errors import Refused
from taskvault.protocol import messages as m


def refusal(client: Any, request: Any) -> str:
    with pytest.raises(Refused) as refused:
        client.call(request)
    return str(refused.value.kind)


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, math.inf, -math.inf, math.nan, 1e300])
def test_a_life_that_cannot_be_is_refused_and_nothing_is_saved(
    shared_daemon: Any, shared_snapshot: m.SnapshotRef, ttl_s: float
) -> None:
    with shared_daemon.client() as client:
        assert refusal(client, m.SaveEntry("main", "life", "saved", shared_snapshot, ttl_s=ttl_s)) == "Rejected"
        assert client.call(m.GetEntry("main", "life")).entry is None


def test_an_entry_tells_its_pin_and_the_end_of_its_life(shared_daemon: Any, shared_snapshot: m.SnapshotRef) -> None:
    with shared_daemon.client() as client:
        request = m.SaveEntry("main", "told", "saved", shared_snapshot, ttl_s=3600.0, pinned=True)
        saved = client.call(request).entry
        assert saved.pinned
        assert saved.expires_ns == saved.created_ns + 3600 * 10**9
        assert not client.call(m.SetPin("main", "told", False)).entry.pinned
        found = client.call(m.GetEntry("main", "told")).entry
        assert (found.pinned, found.expires_ns) == (False, saved.expires_ns)
        client.call(m.RemoveEntry("main", "told"))


def test_what_has_expired_is_found_by_nothing_and_its_key_is_free(
    shared_daemon: Any, shared_snapshot: m.SnapshotRef
) -> None:
    with shared_daemon.client() as client:
        client.call(m.SaveEntry("gone", "gone-1", "saved", shared_snapshot, ttl_s=0.001))
        while client.call(m.GetEntry("gone", "gone-1")).entry is not None:
            pass
        assert client.call(m.FindNewest("gone", "gone-")).entry is None
        assert client.call(m.ListEntries(scope="gone")).entries == []
        for request in (m.SetPin("gone", "gone-1", True), m.RemoveEntry("gone", "gone-1")):
            assert refusal(client, request) == "KeyMissing"
        client.call(m.SaveEntry("gone", "gone-1", "saved", shared_snapshot))
        assert client.call(m.FindNewest("gone", "gone-", count_use=True)).entry.uses == 1
        client.call(m.RemoveEntry("gone", "gone-1"))


def test_snapshots_are_not_reached_as_keys(shared_daemon: Any, shared_snapshot: m.SnapshotRef) -> None:
    with shared_daemon.client() as client:
        client.call(m.NameSnapshot("release", shared_snapshot))
        client.call(m.NameSnapshot(shared_snapshot.tree, shared_snapshot))
        for request in (m.SetPin(".snapshots", "release", True), m.FindNewest(".snapshots", "")):
            assert refusal(client, request) == "NameInvalid"
        assert client.call(m.ListEntries(scope=".snapshots")).entries == []
        assert client.call(m.ListEntries()).entries == []
        for name in ("release", shared_snapshot.tree):
            assert client.call(m.FindSnapshot(name)).snapshot == shared_snapshot
            client.call(m.RemoveSnapshot(name))
            assert refusal(client, m.RemoveSnapshot(name)) == "SnapshotMissing"
        for name in ("", "a/b", "..", "no-such"):
            assert refusal(client, m.RemoveSnapshot(name)) == "SnapshotMissing"


def test_only_the_digest_of_its_own_tree_keeps_a_snapshot_without_a_name(
    shared_daemon: Any, shared_snapshot: m.SnapshotRef
) -> None:
    other = "blake3:" + "00" * 32 + "-7"
    with shared_daemon.client() as client:
        assert refusal(client, m.NameSnapshot(other, shared_snapshot)) == "NameInvalid"
        missing = m.SnapshotRef(other, None, bytes(32), 1, 1)
        assert refusal(client, m.NameSnapshot(other, missing)) == "SnapshotMissing"


def test_statistics_are_sums_that_outlive_the_daemon(daemon: Any, shared_snapshot: m.SnapshotRef, tree: Any) -> None:
    from taskvault.snapshots import take_snapshot

    daemon.start()
    with daemon.client() as client:
        snapshot = take_snapshot(client, tree, ["."])
        for key in ("a", "b"):
            client.call(m.SaveEntry("main", key, "saved", snapshot))
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        figures = client.call(m.GetStatistics()).figures
        assert (figures["entries"], figures["logical_files"]) == (2, 2 * snapshot.files)
        assert figures["logical_bytes"] == 2 * snapshot.size
        client.call(m.CollectGarbage(evict_bytes=1 << 40))
        assert client.call(m.GetStatistics()).figures["logical_bytes"] == 0
        assert client.call(m.GetStatus()).entries == 0
    assert daemon.stop() == 0


def test_an_unknown_policy_stops_the_start_with_those_there_are(daemon: Any) -> None:
    daemon.start()
    assert daemon.stop() == 0
    (daemon.home / "config.toml").write_text('[eviction]\npolicy = "random"\n')
    daemon.start()
    assert daemon.wait() != 0
    assert "No eviction plugin is called 'random' (installed: lfu, lru, ttl" in daemon.errors


def test_after_the_policy_was_changed_it_decides_what_leaves(daemon: Any, tree: Any) -> None:
    from taskvault.snapshots import take_snapshot

    daemon.start()
    with daemon.client() as client:
        snapshot = take_snapshot(client, tree, ["."])
        for key in ("often", "lately"):
            client.call(m.SaveEntry("main", key, "saved", snapshot))
        for _ in range(3):
            client.call(m.GetEntry("main", "often", count_use=True))
        client.call(m.GetEntry("main", "lately", count_use=True))
    assert daemon.stop() == 0
    (daemon.home / "config.toml").write_text('[eviction]\npolicy = "lfu"\n')
    daemon.start()
    while not any(line["event"] == "every entry is ranked" for line in daemon.log()):
        pass
    with daemon.client() as client:
        assert client.call(m.CollectGarbage(evict_bytes=1)).evicted == 1
        assert [entry.key for entry in client.call(m.ListEntries()).entries] == ["often"]
    assert daemon.stop() == 0
