"""Reach the daemon within a fixed time, and use that time."""

from __future__ import annotations

import threading
from pathlib import Path

from taskvault.client import Client
from tvfs.errors import TaskVaultError

PATIENCE_S = 0.08
"""How long the daemon may take to greet, and to answer before the run, before the command runs without it.

With what loading `tv` takes, 0.08 s, the command starts within 0.2 s in any case.
"""

HEAD_START_S = 0.01
"""Where nobody listens, that is known at once."""


class Reach:
    """A connection that is being made in a thread, so that the caller may load what it will need meanwhile."""

    def __init__(self, home: Path, patience_s: float) -> None:
        """Begin to connect."""
        self._home = home
        self._patience_s = patience_s
        self._client: Client | None = None
        self._error: TaskVaultError | OSError | None = None
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()
        self._thread.join(HEAD_START_S)

    @property
    def failed(self) -> bool:
        """Whether it is known already that the daemon cannot be reached."""
        return self._error is not None

    def client(self) -> Client:
        """Return the connection; raise `OSError`, or what `Client.connect` raises."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._client is not None, "the thread ends with one or the other"
        return self._client

    def _connect(self) -> None:
        try:
            self._client = Client.connect(self._home, timeout_s=self._patience_s)
        except (TaskVaultError, OSError) as exc:
            self._error = exc
