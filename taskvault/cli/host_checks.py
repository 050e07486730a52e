"""What the machine must offer, whatever the vault."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import resource
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from taskvault.cli.answers import Finding

FEWEST_FILES = 1024
"""Open files that the daemon may need: packs, staging files, connections."""
OLDEST_KERNEL = (5, 4)
EARLIEST_S = 1_700_000_000
"""A clock that shows less stands before this program was written."""
MOST_STEP_S = 0.05
"""The two clocks may differ by this much over the tenth of a second in which they are compared."""
_WATCHED_S = 0.1


def fuse_device() -> Iterator[Finding]:
    """/dev/fuse is there and may be opened."""
    name, without = "FUSE device", "or work without a mount: `tv up --no-mount`"
    try:
        is_device = stat.S_ISCHR(os.stat("/dev/fuse").st_mode)
    except OSError:
        remedy = f"load it with `modprobe fuse`; in a container pass --device /dev/fuse --cap-add SYS_ADMIN; {without}"
        yield Finding(name=name, state="failed", fact="/dev/fuse is missing", remedy=remedy)
        return
    if not is_device:
        fact = "/dev/fuse is not a device"
        yield Finding(name=name, state="failed", fact=fact, remedy=f"remove it and load the module; {without}")
    elif not os.access("/dev/fuse", os.R_OK | os.W_OK):
        fact = "/dev/fuse may not be opened"
        yield Finding(name=name, state="failed", fact=fact, remedy=f"join the group that owns it, {without}")
    else:
        yield Finding(name=name, state="ok", fact="/dev/fuse can be opened")


def fuse_module() -> Iterator[Finding]:
    """The kernel knows the file system type."""
    with open("/proc/filesystems", encoding="ascii") as table:
        known = any(line.split()[-1] == "fuse" for line in table if line.strip())
    if known:
        yield Finding(name="FUSE module", state="ok", fact="the kernel has FUSE")
    else:
        remedy = "load it with `modprobe fuse`, and at each boot by a line `fuse` in /etc/modules-load.d/fuse.conf"
        yield Finding(name="FUSE module", state="failed", fact="the kernel does not have FUSE now", remedy=remedy)


def mount_program() -> Iterator[Finding]:
    """`fusermount3` is there; whoever is not root needs it to be setuid."""
    name, path = "fusermount3", shutil.which("fusermount3")
    if path is None:
        without = "root mounts without it" if os.geteuid() == 0 else "without it only root can mount"
        fact = f"not installed; {without}"
        state = "warning" if os.geteuid() == 0 else "failed"
        yield Finding(name=name, state=state, fact=fact, remedy="install the package fuse3")  # type: ignore[arg-type]
    elif os.geteuid() != 0 and not os.stat(path).st_mode & stat.S_ISUID:
        remedy = f"`chmod u+s {path}` as root, or reinstall fuse3"
        yield Finding(name=name, state="failed", fact=f"{path} is not setuid root", remedy=remedy)
    else:
        yield Finding(name=name, state="ok", fact=path)


def other_users() -> Iterator[Finding]:
    """Whether others may be let into the mount."""
    name = "other users"
    try:
        with open("/etc/fuse.conf", encoding="utf-8", errors="replace") as file:
            allowed = any(line.strip() == "user_allow_other" for line in file)
    except OSError:
        allowed = False
    if os.geteuid() == 0:
        yield Finding(name=name, state="ok", fact="root may let other users into the mount")
    elif allowed:
        yield Finding(name=name, state="ok", fact="user_allow_other is set")
    else:
        remedy = "needed only if others (also root) shall see the mount: put user_allow_other into /etc/fuse.conf"
        yield Finding(name=name, state="warning", fact="only you can see the mount", remedy=remedy)


def kernel() -> Iterator[Finding]:
    """Linux, and new enough."""
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    numbers = (int(found[1]), int(found[2])) if found else (0, 0)
    if platform.system() != "Linux":
        yield Finding(name="kernel", state="failed", fact=platform.system(), remedy="TaskVault needs Linux")
    elif numbers < OLDEST_KERNEL:
        remedy = f"use {OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]} or newer"
        yield Finding(name="kernel", state="failed", fact=release, remedy=remedy)
    else:
        yield Finding(name="kernel", state="ok", fact=release)


def kernel_features() -> Iterator[Finding]:
    """System calls that a newer kernel has and a container may forbid."""
    name = "kernel features"
    missing = []
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        missing.append("pidfd_open")
    try:
        os.close(os.memfd_create("taskvault"))
    except (AttributeError, OSError):
        missing.append("memfd_create")
    if missing:
        remedy = "let the container's seccomp profile allow them, or use a newer kernel"
        yield Finding(name=name, state="failed", fact=f"not available: {', '.join(missing)}", remedy=remedy)
    else:
        yield Finding(name=name, state="ok", fact="pidfd_open, memfd_create")


def open_files() -> Iterator[Finding]:
    """The hard limit: the daemon raises its own to it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FEWEST_FILES:
        remedy = f"raise the hard limit to {FEWEST_FILES} (`ulimit -Hn`, LimitNOFILE= in a unit)"
        yield Finding(name="open files", state="failed", fact=f"at most {most}", remedy=remedy)
    else:
        fact = "unlimited" if most == resource.RLIM_INFINITY else f"at most {most}"
        yield Finding(name="open files", state="ok", fact=fact)


def locked_memory() -> Iterator[Finding]:
    """Nothing of ours locks memory: said because people look for it."""
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    fact = "unlimited" if most == resource.RLIM_INFINITY else f"at most {most >> 10} KiB"
    yield Finding(name="locked memory", state="ok", fact=f"{fact}; none is needed")


def python_packages() -> Iterator[Finding]:
    """Every package that the installation asks for is there, and can be found."""
    name = "python packages"
    try:
        wanted = [re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in requires("taskvault") or [] if ";" not in line]
    except PackageNotFoundError:
        wanted = []
    missing = [package for package in wanted if not _installed(package)]
    if not missing and importlib.util.find_spec("tvd") is None:
        missing = ["tvd"]
    if missing:
        fact = f"missing: {', '.join(missing)}"
        yield Finding(name=name, state="failed", fact=fact, remedy=f"`{sys.executable} -m pip install taskvault` again")
    else:
        yield Finding(name=name, state="ok", fact=f"Python {platform.python_version()}, all {len(wanted)} are there")


def clock() -> Iterator[Finding]:
    """The clock shows a sane time, and runs as fast as the one that nobody sets."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S")
    if time.time() < EARLIEST_S:
        remedy = "set the clock: make, and the order of entries, go by it"
        yield Finding(name="clock", state="failed", fact=shown, remedy=remedy)
        return
    wall_s, steady_s = time.time(), time.monotonic()
    time.sleep(_WATCHED_S)
    step_s = (time.time() - wall_s) - (time.monotonic() - steady_s)
    if abs(step_s) > MOST_STEP_S:
        remedy = "somebody is setting it just now; have it follow a time server that slews instead of stepping"
        yield Finding(name="clock", state="warning", fact=f"{shown}, jumped by {step_s:+.2f} s", remedy=remedy)
    else:
        yield Finding(name="clock", state="ok", fact=shown)


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def warm_process() -> Iterator[Finding]:
    """Whether calls through `tv shim` are replayed without starting Python."""
    from taskvault.run.private_directory import NotPrivate
    from taskvault.warm.running import can_be, running

    name = "warm process"
    if not can_be():
        remedy = "install gcc, then reinstall taskvault from source; until then each call of a shim starts Python"
        yield Finding(name=name, state="warning", fact="the launcher was not compiled", remedy=remedy)
        return
    try:
        there = list(running())
    except NotPrivate as exc:
        yield Finding(name=name, state="warning", fact=str(exc), remedy=f"remove {exc.place}")
        return
    trouble = next((each.trouble for each in there if each.trouble), "")
    if trouble:
        remedy = "calls that it could not answer ran in Python; report it, with the file beside its socket"
        yield Finding(name=name, state="warning", fact=f"something went wrong in it: {trouble}", remedy=remedy)
    else:
        fact = f"{len(there)} of yours" if there else "none now; the first call of a shim starts it"
        yield Finding(name=name, state="ok", fact=fact)
