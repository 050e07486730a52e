"""Everything an operator may choose, with the reasons for the defaults.

One frozen dataclass a component; the section of `config.toml` has its name, the keys are the fields.  Units are in the
names.  `tvd.config_file` reads them; nothing here looks at files or the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

MIB = 1 << 20
GIB = 1 << 30

Number = TypeVar("Number", int, float)


def _between(default: Number, least: Number, most: Number) -> Number:
    """Declare a field with limits, both allowed."""
    made: Number = field(default=default, metadata={"least": least, "most": most})
    return made


def _one_of(default: str, *allowed: str) -> str:
    """Declare a field that takes one of a few words."""
    made: str = field(default=default, metadata={"allowed": allowed})
    return made


@dataclass(frozen=True, slots=True)
class VaultConfig:
    """The store.  All of it counts only when the vault is made: an existing one keeps what it was made with."""

    capacity_bytes: int = _between(50 * GIB, 64 * MIB, 1 << 60)
    """The vault never takes more of the disk; below 64 MiB a pack (at most 1/16 of it) is too small to pay."""
    hash: str = "blake3"
    """Hash plugin that addresses content; 6 GB/s a core, and a tree hash that can be checked in parts."""
    compression: str = "zstd"
    """Compression plugin for new chunks; `none` stores raw.  What does not get smaller is kept raw anyway."""
    chunking: str = "fastcdc"
    """Chunking plugin: where contents are cut, so that versions of a file share most chunks."""
    chunking_parameters: dict[str, int | str] = field(default_factory=dict)
    """What the chunking plugin takes (sizes in bytes); empty takes the plugin's defaults."""
    compression_parameters: dict[str, int | str] = field(default_factory=dict)
    """What the compression plugin takes, e.g. `level`; empty takes the plugin's defaults."""


@dataclass(frozen=True, slots=True)
class EvictionConfig:
    """Which entries leave first when room is needed."""

    policy: str = "lru"
    """Eviction plugin.  After it was changed, every entry is ranked anew in the background."""
    parameters: dict[str, int | str] = field(default_factory=dict)
    """What the plugin takes; empty takes its defaults."""


@dataclass(frozen=True, slots=True)
class ReclaimConfig:
    """When room is made.  Used is what is stored and promised, with what is kept for compacting and removing."""

    high_watermark: float = _between(0.90, 0.1, 1.0)
    """More than this part of the vault used: entries are evicted, ahead of need."""
    low_watermark: float = _between(0.85, 0.05, 1.0)
    """Down to this part; the distance to the high mark is what is evicted in one go."""
    dead_fraction: float = _between(0.10, 0.01, 0.9)
    """More than this part of all packs dead: packs are compacted, at 100 MB/s or more."""
    interval_s: float = _between(1.0, 0.01, 3600.0)
    """How often that is looked at; whoever finds no room makes it at once."""


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """One budget for the owner; the sum, with the interpreter, stays below 350 MiB."""

    memtables_bytes: int = _between(48 * MIB, 4 * MIB, GIB)
    """Rows that RocksDB has not yet written to files, all families together."""
    block_cache_bytes: int = _between(64 * MIB, 4 * MIB, 64 * GIB)
    """Blocks of RocksDB's files."""
    decoded_chunks_bytes: int = _between(64 * MIB, 16 * MIB, 64 * GIB)
    """Chunks ready to be read from; holds at least one of the longest, 16 MiB."""


@dataclass(frozen=True, slots=True)
class MountConfig:
    """The filesystem that the kernel shows."""

    enabled: bool = True
    """Without a mount (containers without /dev/fuse) everything else works."""
    path: Path | None = None
    """Where; `HOME/mnt` if not set.  An empty directory of ours, or a dead mount, which is replaced."""
    allow_other: bool = False
    """Let other users in, subject to permissions; needs root or `user_allow_other` in /etc/fuse.conf."""
    transport: str = _one_of("kernel", "kernel", "pyfuse3")
    """How the kernel is spoken with: in its own protocol, or through libfuse (docs/design/transport.md)."""
    passthrough: bool = True
    """Let the kernel read long files that are read often past the daemon, where that can be had: transport `kernel`,
    root, Linux 6.9.  Otherwise it makes no difference.

    The kernel then gathers no writes: each write(2) is a request.  Copies take at most an eighth of the vault."""
    xattrs: bool = False
    """Extended attributes.  They cost one question for each file that is written; over pyfuse3 one for every write(2),
    201 us instead of 1.8."""
    read_ahead_kib: int = _between(4096, 0, 16384)
    """How far the kernel reads ahead (needs root to be set); the kernel's own 128 makes eight times the requests."""
    unmount_timeout_s: float = _between(60.0, 0.1, 3600.0)
    """How long shutdown waits for the kernel to flush and unmount before the mount is detached instead."""


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """The unix socket that clients talk to."""

    group: str | None = None
    """Name of a group whose members may connect too; unset, only the owner's user and root may."""
    max_connections: int = _between(256, 1, 16384)
    """More are told to come back later; each may hold one frame of up to 16 MiB."""
    receive_timeout_s: float = _between(30.0, 0.1, 3600.0)
    """A frame that has begun must have arrived by then; between frames a client may be silent for ever."""
    send_timeout_s: float = _between(30.0, 0.1, 3600.0)
    """A client that does not take its reply within this has its connection closed."""
    drain_timeout_s: float = _between(30.0, 0.1, 3600.0)
    """How long shutdown waits for requests that are being carried out."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The structured log."""

    level: str = _one_of("info", "debug", "info", "warning", "error")
    """The least important events that are kept."""
    max_bytes: int = _between(16 * MIB, 64 << 10, 16 * GIB)
    """`HOME/tvd.log` is moved to `tvd.log.1` when it would grow beyond this."""
    kept_files: int = _between(2, 1, 100)
    """Older logs that are kept beside the current one."""


@dataclass(frozen=True, slots=True)
class SupervisionConfig:
    """Background tasks that fail."""

    first_backoff_s: float = _between(0.5, 0.001, 3600.0)
    """Wait before the first restart; doubles with each further failure in a row."""
    longest_backoff_s: float = _between(30.0, 0.001, 3600.0)
    """The wait does not grow beyond this."""
    unhealthy_after: int = _between(3, 1, 1000)
    """Failures in a row after which the daemon calls itself unhealthy; it goes on serving and trying."""
    stable_s: float = _between(60.0, 0.001, 86400.0)
    """A task that has run this long is taken to have recovered."""


@dataclass(frozen=True, slots=True)
class PluginsConfig:
    """Plugins that are not built in."""

    call_timeout_s: float = _between(10.0, 0.1, 3600.0)
    """One call may take this long and 4 s more a MiB; then it is an error.  Long enough for a machine that swaps."""


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What the service manager told us; from its own environment variables, not from the file."""

    notify_socket: str | None = None
    """Address of systemd's notification socket."""
    watchdog_s: float | None = None
    """How often systemd wants to hear from us, at the least."""
    keeps_descriptors: bool = False
    """Whether what we send there is kept for the next daemon."""
    descriptors: tuple[tuple[str, int], ...] = ()
    """What the last daemon had kept: names and descriptors."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything, and where the vault is."""

    home: Path
    vault: VaultConfig = field(default_factory=VaultConfig)
    eviction: EvictionConfig = field(default_factory=EvictionConfig)
    reclaim: ReclaimConfig = field(default_factory=ReclaimConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    mount: MountConfig = field(default_factory=MountConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    log: LogConfig = field(default_factory=LogConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    plugins: PluginsConfig = field(default_factory=PluginsConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)

    @property
    def mountpoint(self) -> Path | None:
        """Where to mount, or None."""
        if not self.mount.enabled:
            return None
        return self.mount.path or self.home / "mnt"
