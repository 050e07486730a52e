"""The one place where the daemon's parts meet."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

import structlog
import trio

from tvd.activity import ActivityRecorder
from tvd.config import Config, MemoryConfig, MountConfig, ReclaimConfig, VaultConfig
from tvd.control.activity_requests import ActivityRequests, watched
from tvd.control.checking_requests import CheckingRequests
from tvd.control.entries_requests import EntriesRequests
from tvd.control.growth import with_room
from tvd.control.ingest_requests import IngestRequests
from tvd.control.listener import listen, remove_socket
from tvd.control.live_requests import LiveRequests
from tvd.control.path_requests import PathRequests, no_mount
from tvd.control.peer import Admission, Peer, find_group
from tvd.control.plugin_requests import PluginRequests
from tvd.control.reclaim_requests import ReclaimRequests
from tvd.control.runs_requests import RunsRequests
from tvd.control.server import ControlServer
from tvd.control.session_requests import DaemonFacts, SessionRequests
from tvd.control.snapshots import Snapshots
from tvd.control.vault_session import VaultSession
from tvd.entry_views import EntryViews
from tvd.eviction import Evictor
from tvd.fuse_mount import FuseMount
from tvd.owner import BackgroundTask, Owner, OwnerParts, StopRequest
from tvd.readiness import ServiceManager
from tvd.reclaim import Reclaimer
from tvd.stack_dump import RequestNames
from tvd.succession import ask, prepare
from tvd.supervisor import Health
from tvd.watched_filesystem import WatchedFilesystem
from tvfs.catalog.group_commit import FlushFailed
from tvfs.catalog.rocks import RocksSettings
from tvfs.clock import SystemClock
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.fuse.hand_over import HandOver
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import VaultExists, create_vault
from tvfs.vault.layout import Layout
from tvfs.vault.ranking import Ranking
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import OpenSettings, Vault, open_vault

LOG_FRACTION = 64
"""The daemon's logs take at most this part of the vault: they count as used."""


def make_vault(config: Config) -> None:
    """Make the vault that the configuration describes; raise `VaultExists` and what else `create_vault` does."""
    registry = PluginRegistry(deadline_s=config.plugins.call_timeout_s)
    registry.eviction(config.eviction.policy, config.eviction.parameters)
    create_vault(config.home, settings=_vault_settings(config.vault), registry=registry)


def make_vault_if_missing(config: Config) -> None:
    """Make the vault unless there is one; raise what `create_vault` does."""
    if Layout(config.home).format.exists():
        return
    try:
        make_vault(config)
    except VaultExists:  # another process was faster
        return


@asynccontextmanager
async def assembled(config: Config) -> AsyncIterator[Owner]:
    """Open the vault and yield its owner; on leaving, everything is flushed and closed.  Raises a `TaskVaultError`."""
    log = structlog.get_logger().bind(part="owner")
    health = Health()
    clock = SystemClock()
    # Before the vault is touched: a wrong setting changes nothing.
    sharing_gid = find_group(config.control.group)
    registry = PluginRegistry(deadline_s=config.plugins.call_timeout_s)
    policy = registry.eviction(config.eviction.policy, config.eviction.parameters)
    async with open_vault(
        config.home,
        registry,
        settings=_open_settings(config.memory),
        clock=clock,
        on_damage=_damage_reporter(health),
    ) as vault:
        log.info("opened", home=str(config.home), recovery=repr(vault.recovery))
        if vault.recovery.damaged:
            health.troubles["recovery"] = "The disk lost data that it had promised to keep; see tvd.log."
        service = ServiceManager(config.service)
        hand_over = await prepare(config, service, vault.catalog)
        inherited = hand_over.inherited if hand_over is not None else None
        lookups = LookupCounts(hand_over.record if hand_over is not None else None)
        filesystem = Filesystem(
            vault, clock=clock, settings=_filesystem_settings(config.mount, hand_over, sharing_gid), lookups=lookups
        )
        if hand_over is not None:
            hand_over.mark = filesystem.mark
        filesystem.start(inherited)
        views = EntryViews(vault.catalog, filesystem, vault.entries)
        repaired = views.repair()
        if repaired:
            log.info("views set right", entries=repaired)
        ranking = Ranking(policy, clock, on_trouble=_policy_reporter(health))
        vault.entries.ranks.use(ranking, config.eviction.parameters)
        evictor = Evictor(vault.entries, views, clock, vault.slices, others=[filesystem.evictables])
        reclaimer = _reclaimer(vault, filesystem, evictor, config.reclaim)
        vault.room.make_room = reclaimer.make_room
        vault.slices.is_urgent = reclaimer.is_urgent
        activity = ActivityRecorder()
        vault.slices.requests = activity.requests
        mount = _mount(config, WatchedFilesystem(filesystem, activity), lookups, hand_over)
        if mount is not None:
            filesystem.tell_kernel(removed=mount.name_removed, listing=mount.listing_changed)
        stop = StopRequest()
        facts = DaemonFacts(
            _version(),
            config.home,
            config.mountpoint,
            clock.monotonic_s(),
            _stopper(stop, mount),
            lambda: _succeeded(stop, hand_over, service),
            config.plugins.call_timeout_s,
        )
        server = _server(config, vault, filesystem, views, health, facts, activity, reclaimer, mount)
        background = _background(vault, filesystem, evictor, reclaimer)
        requests = RequestNames(activity, filesystem.inspection)
        try:
            yield Owner(
                OwnerParts(config, clock, server, mount, background, health, stop, service, requests, hand_over),
                log_max_bytes=vault.superblock.capacity_bytes // LOG_FRACTION,
            )
        finally:
            remove_socket(config.home)
            with trio.CancelScope(shield=True):
                await filesystem.aclose()


def _background(vault: Vault, filesystem: Filesystem, evictor: Evictor, reclaimer: Reclaimer) -> list[BackgroundTask]:
    return [
        BackgroundTask("sealer", filesystem.run_background),
        BackgroundTask("collector", vault.collector.run),
        BackgroundTask("evictor", evictor.run),
        BackgroundTask("reclaimer", reclaimer.run),
        BackgroundTask("ballast", vault.ballast.keep),
    ]


def _reclaimer(vault: Vault, filesystem: Filesystem, evictor: Evictor, settings: ReclaimConfig) -> Reclaimer:
    return Reclaimer(
        room=vault.room,
        evictor=evictor,
        collector=vault.collector,
        compactor=vault.compactor,
        settings=settings,
        clock=vault.clock,
        sweep=filesystem.sweep,
        drop_deleted=vault.catalog.drop_deleted,
        drop_copies=filesystem.drop_copies,
        waited_for=vault.slices.waited_for,
    )


def _server(  # noqa: PLR0913 - what a server is made of
    config: Config,
    vault: Vault,
    filesystem: Filesystem,
    views: EntryViews,
    health: Health,
    facts: DaemonFacts,
    activity: ActivityRecorder,
    reclaimer: Reclaimer,
    mount: FuseMount | None,
) -> ControlServer[VaultSession]:
    group_gid = find_group(config.control.group)
    snapshots = Snapshots(vault, views)
    live = LiveRequests(filesystem, snapshots, mounted=config.mountpoint is not None)

    admission = Admission(os.geteuid(), group_gid)

    def open_session(peer: Peer) -> VaultSession:
        return VaultSession(peer, vault, filesystem, is_owner=admission.is_owner(peer))

    doings = ActivityRequests(activity, vault, filesystem, connections=lambda: server.connections)
    server = ControlServer(
        listen(config.home, group_gid),
        settings=config.control,
        admission=admission,
        table=watched(
            with_room(
                {
                    **SessionRequests(vault, filesystem, health, facts, figures=reclaimer.figures).table(),
                    **IngestRequests(vault).table(),
                    **EntriesRequests(vault, views, snapshots).table(),
                    **live.table(),
                    **RunsRequests(vault, views).table(),
                    **doings.table(),
                    **ReclaimRequests(vault, reclaimer).table(),
                    **PathRequests(vault, filesystem, device=mount.device if mount is not None else no_mount).table(),
                    **CheckingRequests(vault, filesystem).table(),
                    **PluginRequests(vault, config.eviction.policy).table(),
                },
                vault.room,
            ),
            activity,
        ),
        open_session=open_session,
        on_refusal=_disk_watcher(health),
    )
    return server


def _mount(
    config: Config, filesystem: ServedFilesystem, lookups: LookupCounts, hand_over: HandOver | None
) -> FuseMount | None:
    if config.mountpoint is None:
        return None
    return FuseMount(filesystem, lookups, config.mountpoint, home=config.home, config=config.mount, hand_over=hand_over)


def _stopper(stop: StopRequest, mount: FuseMount | None) -> Callable[[bool], Awaitable[None]]:
    async def begin(force: bool) -> None:
        if mount is not None:
            # While everything still serves: if somebody uses the mount, nothing has happened.
            await mount.unmount(force=force)
        stop.ask("a client asked")

    return begin


def _succeeded(stop: StopRequest, hand_over: HandOver | None, service: ServiceManager) -> None:
    ask(hand_over, service)
    stop.ask("another daemon takes over")


def _damage_reporter(health: Health) -> Callable[[ChunkId, str], None]:
    log = structlog.get_logger().bind(part="vault")

    def report(chunk_id: ChunkId, reason: str) -> None:
        log.error("a chunk is damaged", chunk=chunk_id.hex(), reason=reason)
        health.troubles["content"] = "Damaged content was found and is no longer served; see tvd.log."

    return report


def _policy_reporter(health: Health) -> Callable[[str], None]:
    log = structlog.get_logger().bind(part="eviction")

    def report(sentence: str) -> None:
        log.error("the eviction policy failed", reason=sentence)
        health.troubles["eviction"] = sentence

    return report


def _disk_watcher(health: Health) -> Callable[[TaskVaultError], None]:
    def notice(refusal: TaskVaultError) -> None:
        if isinstance(refusal, FlushFailed):
            health.troubles["disk"] = str(refusal)

    return notice


def _vault_settings(config: VaultConfig) -> VaultSettings:
    return VaultSettings(
        hash=config.hash,
        chunking=config.chunking,
        chunking_parameters=dict(config.chunking_parameters),
        compression=config.compression,
        compression_parameters=dict(config.compression_parameters),
        capacity_bytes=config.capacity_bytes,
    )


def _open_settings(config: MemoryConfig) -> OpenSettings:
    return OpenSettings(
        catalog=RocksSettings(memtable_bytes=config.memtables_bytes, block_cache_bytes=config.block_cache_bytes),
        decoded_chunk_bytes=config.decoded_chunks_bytes,
    )


def _filesystem_settings(
    config: MountConfig, hand_over: HandOver | None, sharing_gid: int | None
) -> FilesystemSettings:
    hot_files = config.enabled and config.passthrough and config.transport == "kernel"
    # The kernel goes on with what it agreed on.
    hot_files = hot_files or (hand_over is not None and hand_over.has_passthrough)
    owner_uid, owner_gid = os.geteuid(), os.getegid()
    return FilesystemSettings(owner_uid, owner_gid, sharing_gid=sharing_gid, hot_files=hot_files)


def _version() -> str:
    try:
        return version("taskvault")
    except PackageNotFoundError:
        return "unknown"
