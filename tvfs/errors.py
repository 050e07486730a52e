"""The root of every error that TaskVault raises on purpose.

Each error class stands beside the code that raises it, carries its facts as attributes, and its message says in one
sentence what happened and what to do.  Whoever shows errors to people (the command line, the log) needs this root only.
"""


class TaskVaultError(Exception):
    """Something the user, the operator or the world did or met; the message is fit to be shown as it is."""


class FormatTooNew(TaskVaultError):
    """Something on disk was written by a newer TaskVault; here because every reader of a stored record raises it."""

    def __init__(self, what: str, version: int, known: int) -> None:
        super().__init__(
            f"{what} has format version {version} and this TaskVault knows versions up to {known}; "
            f"nothing was changed: use a newer TaskVault."
        )
        self.what = what
        self.version = version
        self.known = known


class RowDamaged(TaskVaultError, ValueError):
    """A row of the catalog is not what was written; here for the same reason."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} cannot be read; repair the vault with `tv fsck`.")
        self.what = what
