"""What the vault needs of its place, and how its daemon is."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from taskvault.cli.answers import Finding
from taskvault.cli.mounts import is_dead, mounts, of_vault
from taskvault.cli.output import moment, seconds, size

FREE_BYTES = 1 << 30
SLOW_FSYNC_S = 0.5
CLOCK_BEHIND_S = 60.0
"""By how much the clock may stand before the newest file of the vault: other machines may write to its disk."""
_VOLATILE = {"tmpfs", "ramfs"}
_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs")


def permissions(home: Path) -> Iterator[Finding]:
    """The vault, or the place where it would be made, may be written, and by nobody else."""
    place = nearest(home)
    if not os.access(place, os.W_OK | os.X_OK):
        remedy = "choose another with --home or TASKVAULT_HOME"
        yield Finding(name="vault", state="failed", fact=f"{place} may not be written", remedy=remedy)
        return
    if not os.path.exists(home / "format"):
        yield Finding(name="vault", state="ok", fact=f"{home} (not made yet: `tv init`)")
        return
    found = os.stat(home)
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        fact = f"{home} belongs to user {found.st_uid}"
        yield Finding(name="vault", state="failed", fact=fact, remedy="work as that user, or name another with --home")
    elif found.st_mode & stat.S_IWOTH:
        fact = f"{home} may be written by everybody"
        yield Finding(name="vault", state="failed", fact=fact, remedy=f"`chmod o-w {home}`")
    else:
        yield Finding(name="vault", state="ok", fact=str(home))


def last_record(home: Path) -> Iterator[Finding]:
    """The clock does not stand before what the vault has written."""
    newest_s = 0.0
    for name in ("meta", "packs", "tvd.log", "format"):
        with suppress(OSError):
            newest_s = max(newest_s, os.stat(home / name).st_mtime)
    if not newest_s:
        return
    behind_s = newest_s - time.time()
    fact = f"the vault was last written {moment(int(newest_s * 1e9))}"
    if behind_s > CLOCK_BEHIND_S:
        remedy = "set the clock: times to live, and the order in which entries are evicted, go by it"
        fact += f", {seconds(behind_s)} after what the clock shows"
        yield Finding(name="last record", state="warning", fact=fact, remedy=remedy)
    else:
        yield Finding(name="last record", state="ok", fact=fact)


def disk_space(home: Path) -> Iterator[Finding]:
    """There is room, and there are inodes."""
    place = nearest(home)
    free, inodes = shutil.disk_usage(place).free, os.statvfs(place)
    if free < FREE_BYTES:
        remedy = "free some space, or choose another disk with --home"
        yield Finding(name="disk space", state="failed", fact=f"{size(free)} free", remedy=remedy)
    elif inodes.f_files and inodes.f_favail < 1000:
        fact = f"{inodes.f_favail} inodes free"
        yield Finding(name="disk space", state="failed", fact=fact, remedy="remove some files, or choose another disk")
    else:
        yield Finding(name="disk space", state="ok", fact=f"{size(free)} free")


def file_system(home: Path) -> Iterator[Finding]:
    """A local disk that keeps what it was told to keep."""
    place = os.path.realpath(nearest(home))
    holding = [mount for mount in mounts() if _holds(mount.point, place)]
    deepest = max(holding, key=lambda mount: len(mount.point), default=None)
    kind = deepest.kind if deepest else "unknown"
    name, remedy = "file system", "put the vault on a local disk with --home or TASKVAULT_HOME"
    if kind == "fuse.taskvault":
        fact = f"{place} is itself under the mount of a vault, which would wait for itself"
        yield Finding(name=name, state="failed", fact=fact, remedy=remedy)
    elif kind in _VOLATILE:
        yield Finding(name=name, state="warning", fact=f"{kind} is gone after a restart", remedy=remedy)
    elif kind.startswith(_REMOTE) or kind == "fuse" or kind.startswith("fuse."):
        fact = f"{kind} may not keep what it was told to keep, nor lock for two machines"
        yield Finding(name=name, state="warning", fact=fact, remedy=remedy)
    else:
        yield Finding(name=name, state="ok", fact=kind)


def fsync(home: Path) -> Iterator[Finding]:
    """A file can be made, written and made to last where the vault is, or will be; it is removed again."""
    place = nearest(home)
    began_s = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        fact = f"nothing can be written and synced in {place}: {exc.strerror}"
        yield Finding(name="fsync", state="failed", fact=fact, remedy="repair the disk, or choose another with --home")
        return
    took_s = time.monotonic() - began_s
    if took_s > SLOW_FSYNC_S:
        remedy = "each save waits for at least one: put the vault on a faster disk"
        yield Finding(name="fsync", state="warning", fact=f"works, but took {seconds(took_s)}", remedy=remedy)
    else:
        yield Finding(name="fsync", state="ok", fact=f"works, took {seconds(took_s)}")


def control_socket(home: Path) -> Iterator[Finding]:
    """The socket, if there is one, is a socket, private, and somebody listens."""
    path = home / "control.sock"
    try:
        found = os.lstat(path)
    except OSError:
        yield Finding(name="socket", state="ok", fact="there is none; the daemon makes it")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding(name="socket", state="failed", fact=f"{path} is no socket", remedy="remove it")
    elif found.st_mode & stat.S_IWOTH:
        remedy = "restart the daemon with `tv down` and `tv up`"
        yield Finding(name="socket", state="failed", fact=f"{path} is open to everybody", remedy=remedy)
    elif not _listens(home):
        remedy = "`tv up` replaces it"
        yield Finding(name="socket", state="warning", fact=f"{path} was left by a daemon that ended", remedy=remedy)
    else:
        yield Finding(name="socket", state="ok", fact=str(path))


def stale_mounts(home: Path) -> Iterator[Finding]:
    """No mount of this vault is left that nobody serves."""
    # With a daemon that listens its mount is not asked here: it may hang, and `daemon` asks with a deadline.
    left = [] if _listens(home) else [point for point in of_vault(home) if is_dead(point)]
    for point in left:
        remedy = "`tv up` replaces it, `tv down` removes it"
        yield Finding(name="mount", state="warning", fact=f"{point} was left mounted, and is dead", remedy=remedy)
    if not left:
        yield Finding(name="mount", state="ok", fact=", ".join(of_vault(home)) or "nothing of this vault is mounted")


def daemon(home: Path) -> Iterator[Finding]:
    """It answers, and so does its mount."""
    from taskvault.client import Client
    from taskvault.errors import DaemonUnreachable
    from taskvault.protocol.messages import GetStatus
    from tvfs.errors import TaskVaultError

    restart = "stop it with `tv down --force` and start it again"
    try:
        with Client.connect(home, timeout_s=2.0) as client:
            mount = client.welcome.mount
            status = client.call(GetStatus(), timeout_s=2.0)
    except DaemonUnreachable:
        yield Finding(name="daemon", state="ok", fact="not up (`tv up` starts it)")
        return
    except TaskVaultError as exc:
        yield Finding(name="daemon", state="failed", fact=str(exc), remedy=restart)
        return
    if not status.healthy:
        remedy = "see `tv status` and tvd.log"
        yield Finding(name="daemon", state="failed", fact=f"up, in trouble: {status.trouble}", remedy=remedy)
    elif mount is None:
        yield Finding(name="daemon", state="ok", fact="up, without a mount")
    elif (reason := _silent(mount)) is not None:
        fact = f"up, but {mount} does not answer ({reason})"
        yield Finding(name="daemon", state="failed", fact=fact, remedy=restart)
    else:
        yield Finding(name="daemon", state="ok", fact=f"up, mounted at {mount}")


def nearest(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    return next((place for place in (path, *path.parents) if os.path.exists(place)), Path("/"))


def _listens(home: Path) -> bool:
    from taskvault.protocol.address import socket_address

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            with socket_address(home) as address:
                probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError:  # too busy to take us is there
            return True
    return True


def _silent(mount: str) -> str | None:
    try:
        os.listdir(mount)
    except OSError as exc:
        return exc.strerror
    return None


def _holds(point: str, place: str) -> bool:
    return point == "/" or place == point or place.startswith(point + "/")
