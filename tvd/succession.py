"""Which mount a daemon takes over from the last one, and what it leaves to the next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from tvd import logs
from tvd.config import Config, LogConfig
from tvd.fuse_mount import mount_settings
from tvd.readiness import ServiceManager
from tvfs.catalog.catalog import Catalog
from tvfs.errors import TaskVaultError
from tvfs.filesystem.change import begin_requests, last_request
from tvfs.filesystem.session_record import NO_SESSION, SessionRecord, SessionRecordUnreadable
from tvfs.fuse.hand_over import RECORD_NAME, SESSION_NAME, HandOver, HandOverRefused, give_up
from tvfs.fuse.mount_point import detach
from tvfs.fuse.mount_table import mounts_of

_log = structlog.get_logger()


class HandOverImpossible(TaskVaultError):
    """No other daemon can take the mount over."""

    def __init__(self) -> None:
        super().__init__(
            "The daemon cannot be replaced while it is mounted: nothing keeps the mount meanwhile (it needs the "
            'transport "kernel", and systemd or `tv up` to have started it); use `tv down`, then `tv up`.'
        )


async def prepare(config: Config, service: ServiceManager, catalog: Catalog) -> HandOver | None:
    """Return what lets the mount outlive this daemon, and what it is to go on with; None if nobody would keep it.

    A mount that cannot be taken over is taken away, and the log says why.
    """
    for _, descriptor in config.service.descriptors:
        os.set_inheritable(descriptor, False)
    inherited = await _inherited(config, service, last_request(catalog))
    if inherited is not None:
        return inherited
    record = None
    if config.mountpoint is not None and config.mount.transport == "kernel" and service.keeps_descriptors:
        try:
            record = SessionRecord.create()
        except SessionRecordUnreadable as exc:
            _log.warning("the mount will not outlive the daemon", part="mount", reason=str(exc))
    # Whoever keeps an older session for the next daemon keeps it in vain from now on.
    begin_requests(catalog, NO_SESSION if record is None else record.session)
    return None if record is None else HandOver(service, record)


def ask(hand_over: HandOver | None, service: ServiceManager) -> None:
    """Let the end of the daemon leave the mount to the next one; raise `HandOverImpossible`."""
    if hand_over is None or not service.keeps_descriptors:
        raise HandOverImpossible
    hand_over.asked = True


def let_go(home: str, kept: Mapping[str, int], ended: str) -> None:
    """Take a mount away that no daemon goes on with, and say so in the log; `ended` is how the last one did.

    Closes what was kept for the next one, so that clients are told at once.
    """
    log = LogConfig()
    logs.configure(logs.open_log(Path(home), log, to_stderr=False), log.level)
    _log.error("nobody goes on with the mount", part="caretaker", daemon_ended_with=ended)
    device = SessionRecord(kept[RECORD_NAME]).device
    os.close(kept[SESSION_NAME])
    for mount in mounts_of(device):
        with suppress(TaskVaultError):
            trio.run(detach, mount.point)


async def _inherited(config: Config, service: ServiceManager, last: bytes) -> HandOver | None:
    kept = dict(config.service.descriptors)
    session, record = kept.get(SESSION_NAME), kept.get(RECORD_NAME)
    if session is None or record is None:
        for name, descriptor in config.service.descriptors:
            service.drop(name)
            os.close(descriptor)
        return None
    point, settings = str(config.mountpoint or ""), mount_settings(config.home, config.mount)
    try:
        hand_over = HandOver(service, SessionRecord(record), session, last_request=last)
        hand_over.check(point, settings)
    except (SessionRecordUnreadable, HandOverRefused) as exc:
        _log.warning("the mount is not taken over", part="mount", reason=str(exc))
        await give_up(service, session, point, settings.vault)
        return None
    taken = hand_over.record
    _log.info("the mount is taken over", part="mount", settled=taken.settled, handles=len(taken.handles()))
    return hand_over
