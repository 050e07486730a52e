"""What an operator may set about the filesystem; every value has a default that suits a build machine."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class FilesystemSettings:
    """Read once, when the filesystem is made."""

    owner_uid: int = 0
    """Owner of the fixed directories and of trees attached without attributes: the user whom the vault belongs to."""
    owner_gid: int = 0
    """Group of the same."""
    sharing_gid: int | None = None
    """Group whose members publish by rename too, as the owner does; nobody else if there is none."""
    share_views: bool = False
    """Whether others than the owner may read `keys/`, `runs/`, `snapshots/` and `cas/`."""
    remembered_inodes: int = 32_768
    """Decoded inodes kept in memory; about 0.4 KiB each."""
    open_descriptors: int = 512
    """Staging files kept open between writes."""
    inline_bytes: int = 128 * KIB
    """Reads and writes of staging files up to this length are done at once; longer ones go to a thread."""
    staged_in_row_bytes: int = 16 * KIB
    """A file up to this length is staged in its row of the catalog; 0: each has a staging file."""
    max_file_bytes: int = 8 << 40
    """No file grows beyond; a larger one gives EFBIG."""
    seal_idle_s: float = 1.0
    """How long a file is left alone after its last writer has closed it."""
    seal_backoff_s: float = 60.0
    """The longest wait for files that are written again each time they were sealed."""
    seal_retry_s: float = 5.0
    """How long to wait after sealing failed, for want of space, say; doubles up to `seal_backoff_s`."""
    seal_batch_files: int = 256
    """Files sealed by one commit."""
    seal_batch_bytes: int = 64 * MIB
    """A batch ends when it has this many bytes; a longer file is a batch of its own."""
    seal_max_bytes: int = 64 << 30
    """Longer files stay in staging: they are sparse disk images, mostly, and sealing reads their holes."""
    hot_files: bool = False
    """Whether copies are kept of long files that are read often, for a transport that lets the kernel read them."""
    hot_fraction: float = 1 / 8
    """The part of the vault's capacity that such copies may take."""
    hot_least_bytes: int = MIB
    """Shorter files are read in a request or two as it is."""
    sweep_slice: int = 24
    """Names removed from the trash between two looks at other work."""
    sweep_interval_s: float = 1.0
    """How often the sweeper looks for what has come free."""
