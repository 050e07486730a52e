"""How a vault is mounted."""

from __future__ import annotations

from dataclasses import dataclass

FLUSH_TIMEOUT_S = 60.0
TRANSPORTS = ("kernel", "pyfuse3")
"""The names by which an operator chooses a transport; the first is the default."""


@dataclass(frozen=True, slots=True)
class MountSettings:
    """How a vault is mounted."""

    vault: str
    """Name of the vault, in the mount table as `taskvault:<vault>`: tells our dead mounts from foreign ones."""
    transport: str = TRANSPORTS[0]
    """How the kernel is spoken with: one of `TRANSPORTS`."""
    passthrough: bool = True
    """Whether hot files are read past us, as fast as the disk's filesystem is; transport `kernel` as root only.

    The kernel then has no writeback cache: each `write` system call is a request.
    """
    read_ahead_kib: int = 4096
    """How much the kernel reads ahead of a sequential reader; its own 128 makes eight times as many requests.

    A request is 1 MiB at most: with four the kernel asks for the next while one is decoded, and a file of 1 MiB takes
    two requests instead of three.  Set only as root.
    """
    max_background: int = 64
    """Requests that the kernel may have waiting without a process waiting; its default is 12.  Set only as root."""
    max_tasks: int = 24
    """Requests served at a time.  Each may keep a buffer of 1 MiB: the owner's memory budget has 32 MiB for them."""
    xattrs: bool = False
    """Whether files have extended attributes.  With pyfuse3 that costs one round trip for each `write` system call."""
    suid_and_devices: bool = False
    """Whether set-user-id bits and device files work."""
    allow_other: bool | None = None
    """Whether other users may enter; None: if root mounts, or /etc/fuse.conf has `user_allow_other`."""
    flush_timeout_s: float = FLUSH_TIMEOUT_S
    """How long the kernel may take to write its dirty pages when the mount ends."""
