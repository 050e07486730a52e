"""A process that commits until a failpoint ends it: `vault_driver HOME FAILPOINTS client|owner COMMITS`.

After each acknowledged commit it prints its number.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from tests.pack_sender import PackSender, blob_of
from tvfs import failpoints
from tvfs.ingest.commit import IngestCommit
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.entries import StoredEntry
from tvfs.vault.vault import Vault, open_vault


def chunks_of(number: int) -> list[bytes]:
    """The chunks of one commit: two of its own, and one that every commit has."""
    return [b"%d first " % number * 1000, b"%d second " % number * 300, b"shared " * 500]


async def commit_as_client(vault: Vault, sender: PackSender, number: int) -> None:
    chunks = chunks_of(number)
    blob, _ = blob_of(vault, chunks)
    by_id = {vault.hash_function.digest(raw): raw for raw in chunks}
    missing = await vault.committer.find_missing(list(by_id), sender.holder)
    sent = [sender.append(by_id[chunk_id]) for chunk_id in missing]
    uses = [chunk_id for chunk_id in by_id if chunk_id not in missing]
    assert await sender.commit(IngestCommit(chunks=sent, blobs=[blob], uses=uses)) == []


async def commit_as_owner(vault: Vault, sender: PackSender, number: int) -> None:
    for raw in chunks_of(number):
        await vault.chunks.put(raw)
    await vault.chunks.flush()


async def main(home: Path, armed: str, who: str, commits: int) -> None:
    commit = {"client": commit_as_client, "owner": commit_as_owner}[who]
    async with open_vault(home, PluginRegistry()) as vault:
        sender = PackSender(vault, "client")
        failpoints.arm_from(armed)
        for number in range(commits):
            await commit(vault, sender, number)
            print(number, flush=True)
            entry = StoredEntry("main", f"key {number}", "saved", 1, 1)
            await vault.entries.put(entry, who="driver")
            print(f"entry {number}", flush=True)
        sender.end()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
