"""What can go wrong between a client and the owner; each message says what to do next."""

from __future__ import annotations

from pathlib import Path

from tvfs.errors import TaskVaultError


class DaemonUnreachable(TaskVaultError):
    """Nobody serves the vault, or whoever did has gone; the caller goes on without the vault."""

    def __init__(self, home: Path, reason: str) -> None:
        super().__init__(f"No daemon answers for the vault {home} ({reason}); start it with `tv up`.")
        self.home = home


class NotLetIn(DaemonUnreachable):
    """The vault is another user's, who does not share it with us."""

    def __init__(self, home: Path) -> None:
        TaskVaultError.__init__(
            self,
            f"You may not use the vault {home}; ask its owner to set control.group to a group that you are in,"
            " or name a vault of yours with TASKVAULT_HOME.",
        )
        self.home = home


class DaemonWedged(TaskVaultError):
    """The owner did not answer in time; the connection is of no further use."""

    def __init__(self, home: Path, waited_s: float) -> None:
        super().__init__(
            f"The daemon of the vault {home} did not answer within {round(waited_s, 2):g} s;"
            " look into its tvd.log, and stop it with `tv down` if it stays like that."
        )
        self.home = home
        self.waited_s = waited_s


class ProtocolMismatch(TaskVaultError):
    """Client and owner speak different versions."""

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__(
            f"This program speaks version {ours} of the daemon's protocol and the daemon version {theirs};"
            " restart the daemon with `tv down` and `tv up` so that both come from the same installation."
        )
        self.ours = ours
        self.theirs = theirs


class Refused(TaskVaultError):
    """The owner understood the request and said no; nothing was changed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Class name of the owner's error: `KeyExists`, `KeyMissing`, `VaultFull`, `OpenForWriting`, `Internal` …"""
        self.message = message
