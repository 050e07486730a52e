"""The contract of a transport: what carries requests from the kernel to the filesystem, and answers back.

A transport translates; what a request means is in `service` and in the filesystem.  docs/design/transport.md says what
either side may rely on; `tvfs.testing.transport_contract` tests it without a kernel.
"""

from __future__ import annotations

from typing import Protocol

import trio


class Transport(Protocol):
    """One session with a kernel, from the mount to its end; the owner's trio thread only.

    The calls come in this order: `mount` or `take`, `serve` once, `close`.  Every request is answered exactly once, in
    any order, whatever its handler raises; those that expect no answer get none.
    """

    counts: dict[str, int]
    """Requests of each kind since the start, by lower-case name."""
    initialised: trio.Event
    """Set when both sides have agreed on a protocol: only then do a mount's tunables stay as they are set."""

    async def mount(self, point: str, source: str) -> None:
        """Put a new session at `point`, under the name `source`; raise `FuseUnavailable`.

        Returns before the kernel has asked anything, and looks at nothing in the new mount: nobody would answer.
        """
        ...

    def take(self, descriptor: int) -> None:
        """Use a session that is open already and has not been spoken on; owns the descriptor from now on."""
        ...

    async def serve(self) -> None:
        """Answer until the session ends: by an unmount, or by `stop`.  Then answer what was begun, and return.

        To be shielded from cancellation, which would leave clients without answers.
        """
        ...

    def stop(self) -> None:
        """Take no more requests; what the kernel has not sent yet is lost, so unmount first."""
        ...

    def close(self, *, unmount: bool) -> None:
        """Let go of the session, so that every system call on the mount returns.

        `unmount` says that the mount point is still there: it may be taken away too.
        """
        ...

    def name_removed(self, parent: int, name: bytes, ino: int) -> None:
        """Tell the kernel that the owner removed a name by itself; returns at once.

        The kernel may ask us something before it believes it: a thread waits for that.  Nothing happens if the kernel
        does not know the name, or the session is over.
        """
        ...

    def listing_changed(self, ino: int) -> None:
        """Tell the kernel that the owner added a name to a directory; returns at once."""
        ...

    def attributes_changed(self, ino: int) -> None:
        """Tell the kernel that the owner changed an inode's attributes, not its content; returns at once."""
        ...
