"""What clients read through locations and descriptors while packs are compacted behind their backs."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from taskvault.protocol.messages import Done, EndPack, Locate, Located, OpenPack, PackOpened
from tests.pack_sender import PackSender
from tvd.control.answer import Answer
from tvd.control.ingest_requests import SLICE, IngestRequests
from tvd.control.peer import Peer
from tvd.control.vault_session import VaultSession
from tvfs.clock import SystemClock
from tvfs.digest import ChunkId
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.packs.location import Location
from tvfs.packs.pack_reader import payload_of, read_run
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import Vault, open_vault


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    registry = PluginRegistry()
    create_vault(tmp_path / "home", settings=VaultSettings(capacity_bytes=256 << 20), registry=registry)
    async with open_vault(tmp_path / "home", registry) as vault:
        yield vault


@pytest.fixture
async def session(vault: Vault) -> AsyncIterator[VaultSession]:
    filesystem = Filesystem(vault, clock=SystemClock(), settings=FilesystemSettings(), lookups=LookupCounts())
    filesystem.start()
    session = VaultSession(Peer(pid=1, uid=os.geteuid(), gid=os.getegid()), vault, filesystem, is_owner=True)
    yield session
    await session.close()
    await filesystem.aclose()


async def fill(vault: Vault, packs: int, chunks: int) -> dict[ChunkId, bytes]:
    draw = random.Random(packs)
    stored: dict[ChunkId, bytes] = {}
    for _ in range(packs):
        sender = PackSender(vault, "client", reserve_bytes=8 << 20)
        raws = [draw.randbytes(3000) for _ in range(chunks)]
        assert await sender.store(*raws) == []
        sender.end()
        stored.update((ChunkId(vault.hash_function.digest(raw)), raw) for raw in raws)
    return stored


async def read(requests: IngestRequests, session: VaultSession, wanted: list[ChunkId]) -> dict[ChunkId, bytes]:
    """As a client does: ask where, read there, and ask again for what comes later."""
    found: dict[ChunkId, bytes] = {}
    asked: list[bytes] = list(wanted)
    while asked:
        answer = await requests.locate(session, Locate(asked))
        located = answer.reply
        assert isinstance(answer, Answer)
        assert isinstance(located, Located)
        assert located.missing == []
        await trio.sleep(0.001)  # the way to the client, in which anything may happen
        descriptors = dict(zip(located.packs, answer.descriptors, strict=True))
        for place in located.locations:
            at = Location(place.pack, place.offset, place.stored_bytes, place.raw_bytes, place.codec)
            chunk_id = ChunkId(place.chunk_id)
            found[chunk_id] = bytes(payload_of(read_run(descriptors[at.pack], [at])[0], at, chunk_id))
        answer.close()
        asked = located.later
    return found


async def test_what_was_located_is_read_whatever_is_compacted_meanwhile(vault: Vault, session: VaultSession) -> None:
    stored = await fill(vault, packs=6, chunks=SLICE // 4)
    doomed = list(stored)[:: len(stored) // 40]
    for chunk_id in doomed:
        del stored[chunk_id]
    requests = IngestRequests(vault)
    done = trio.Event()
    reads = 0

    async def read_for_ever(seed: int) -> None:
        nonlocal reads
        draw = random.Random(seed)
        while not done.is_set():
            # More than a slice, so that the look-up is not one step.
            wanted = draw.sample(sorted(stored), SLICE + 50)
            assert await read(requests, session, wanted) == {chunk_id: stored[chunk_id] for chunk_id in wanted}
            reads += 1

    async with trio.open_nursery() as nursery:
        for seed in range(3):
            nursery.start_soon(read_for_ever, seed)
        for chunk_id in doomed[:12]:
            await vault.chunks.delete(chunk_id)
            await vault.compactor.compact(least_dead_fraction=0.0)
        done.set()
    assert reads > 10
    assert vault.compactor.total.removed_packs >= 12


async def test_what_moved_between_the_look_up_and_the_opening_is_asked_for_again(
    vault: Vault, session: VaultSession
) -> None:
    stored = await fill(vault, packs=1, chunks=20)
    requests = IngestRequests(vault)
    gone, *kept = stored
    before = await requests.locate(session, Locate(list(kept)))
    before.close()
    assert isinstance(before.reply, Located)
    await vault.chunks.delete(gone)
    assert (await vault.compactor.compact(least_dead_fraction=0.0)).removed_packs == 1
    late = requests._located({before.reply.packs[0]: before.reply.locations}, [])
    assert isinstance(late.reply, Located)
    assert (late.reply.later, late.reply.missing, late.descriptors) == (kept, [], ())
    assert await read(requests, session, kept) == {chunk_id: stored[chunk_id] for chunk_id in kept}


async def test_a_pack_that_is_given_back_is_cut_and_no_longer_reserved(vault: Vault, session: VaultSession) -> None:
    requests = IngestRequests(vault)
    opened = await requests.open_pack(session, OpenPack(1 << 20))
    opened.close()
    assert isinstance(opened.reply, PackOpened)
    assert vault.reservations.reserved_bytes == 1 << 20
    for number in (opened.reply.number + 1, opened.reply.number, opened.reply.number):
        assert await requests.end_pack(session, EndPack(number)) == Done()
    assert vault.reservations.reserved_bytes == 0
    assert vault.packs.numbers() == []
