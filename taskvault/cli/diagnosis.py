"""What `tv doctor` looks at, each with its remedy."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from taskvault.cli.mounts import is_dead, mounts, of_vault

State = Literal["ok", "warning", "failed"]

FEWEST_FILES = 1024
"""Open files that the daemon may need: packs, staging files, connections."""
FREE_BYTES = 1 << 30
OLDEST_KERNEL = (5, 4)
EARLIEST_S = 1_700_000_000
"""A clock that shows less stands before this program was written."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: State
    fact: str
    remedy: str = ""


def examine(home: Path) -> list[Finding]:
    """Look at everything; nothing is changed."""
    checks: list[Callable[[], Finding]] = [
        _device, _mount_program, _other_users, _kernel, _open_files, lambda: _home(home), lambda: _disk(home),
        lambda: _file_system(home), _clock, lambda: _daemon(home),
    ]  # fmt: skip
    return [check() for check in checks]


def _device() -> Finding:
    name, without = "FUSE device", "or work without a mount: `tv up --no-mount`"
    try:
        is_device = stat.S_ISCHR(os.stat("/dev/fuse").st_mode)
    except OSError:
        return Finding(name, "failed", "/dev/fuse is missing", f"load it with `modprobe fuse`; in a container pass "
                       f"--device /dev/fuse --cap-add SYS_ADMIN; {without}")  # fmt: skip
    if not is_device:
        return Finding(name, "failed", "/dev/fuse is not a device", f"remove it and load the module; {without}")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return Finding(name, "failed", "/dev/fuse may not be opened", f"join the group that owns it, {without}")
    return Finding(name, "ok", "/dev/fuse can be opened")


def _mount_program() -> Finding:
    name = "fusermount3"
    path = shutil.which("fusermount3")
    if path is None:
        state: State = "warning" if os.geteuid() == 0 else "failed"
        return Finding(name, state, "not installed", "install the package fuse3")
    if os.geteuid() != 0 and not os.stat(path).st_mode & stat.S_ISUID:
        return Finding(name, "failed", f"{path} is not setuid root", f"`chmod u+s {path}` as root, or reinstall fuse3")
    return Finding(name, "ok", path)


def _other_users() -> Finding:
    name = "other users"
    if os.geteuid() == 0:
        return Finding(name, "ok", "root may let other users into the mount")
    try:
        with open("/etc/fuse.conf", encoding="utf-8") as file:
            allowed = any(line.strip() == "user_allow_other" for line in file)
    except OSError:
        allowed = False
    if allowed:
        return Finding(name, "ok", "user_allow_other is set")
    remedy = "needed only if others (also root) shall see the mount: put user_allow_other into /etc/fuse.conf"
    return Finding(name, "warning", "only you can see the mount", remedy)


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if platform.system() != "Linux":
        return Finding("kernel", "failed", platform.system(), "TaskVault needs Linux")
    if numbers < OLDEST_KERNEL:
        return Finding("kernel", "failed", release, f"use {OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]} or newer")
    return Finding("kernel", "ok", release)


def _open_files() -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FEWEST_FILES:
        return Finding(
            "open files", "failed", f"at most {most}", f"raise the hard limit to {FEWEST_FILES} (ulimit -Hn)"
        )
    return Finding("open files", "ok", "unlimited" if most == resource.RLIM_INFINITY else f"at most {most}")


def _home(home: Path) -> Finding:
    place = _nearest(home)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("vault", "failed", f"{place} may not be written", "choose another with --home or TASKVAULT_HOME")
    if not os.path.exists(home / "format"):
        return Finding("vault", "ok", f"{home} (not made yet: `tv init`)")
    return Finding("vault", "ok", str(home))


def _disk(home: Path) -> Finding:
    usage = shutil.disk_usage(_nearest(home))
    fact = f"{usage.free / (1 << 30):.1f} GiB free"
    if usage.free < FREE_BYTES:
        return Finding("disk", "failed", fact, "free some space, or choose another disk with --home")
    return Finding("disk", "ok", fact)


def _file_system(home: Path) -> Finding:
    place = os.path.realpath(_nearest(home))
    kind = max(((m.point, m.kind) for m in mounts() if _holds(m.point, place)), default=("/", "unknown"))[1]
    if kind.startswith(("nfs", "cifs", "smb", "9p")) or kind in ("tmpfs", "fuse"):
        why = "is gone after a restart" if kind == "tmpfs" else "may not keep what it was told to keep"
        return Finding("file system", "warning", f"{kind} {why}", "put the vault on a local disk")
    return Finding("file system", "ok", kind)


def _clock() -> Finding:
    if time.time() < EARLIEST_S:
        remedy = "set the clock: make, and the order of entries, go by it"
        return Finding("clock", "failed", time.strftime("%Y-%m-%d %H:%M:%S"), remedy)
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S"))


def _daemon(home: Path) -> Finding:
    from taskvault.client import Client
    from taskvault.errors import DaemonUnreachable
    from tvfs.errors import TaskVaultError

    try:
        with Client.connect(home, timeout_s=2.0) as client:
            mount = client.welcome.mount
    except DaemonUnreachable:
        dead = next(filter(is_dead, of_vault(home)), None)
        if dead is not None:
            return Finding(
                "daemon", "warning", f"not up, and left {dead} mounted", "`tv up` replaces it, `tv down` removes it"
            )
        return Finding("daemon", "ok", "not up (`tv up` starts it)")
    except TaskVaultError as exc:
        return Finding("daemon", "failed", str(exc), "stop it with `tv down --force` and start it again")
    if mount is None:
        return Finding("daemon", "ok", "up, without a mount")
    try:
        os.listdir(mount)
    except OSError as exc:
        remedy = "stop it with `tv down --force` and start it again"
        return Finding("daemon", "failed", f"up, but {mount} does not answer ({exc.strerror})", remedy)
    return Finding("daemon", "ok", f"up, mounted at {mount}")


def _nearest(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if os.path.exists(place)), Path("/"))


def _holds(point: str, place: str) -> bool:
    return point == "/" or place == point or place.startswith(point + "/")
