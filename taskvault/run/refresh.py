"""What is to run in any case is forgotten first: whatever becomes of the run, nobody is given it again."""

from __future__ import annotations

from collections.abc import Iterable

from taskvault.client import Client
from taskvault.errors import Refused
from taskvault.protocol.messages import RemoveEntry
from taskvault.run.refusals import RunUnstored
from tvfs.errors import TaskVaultError

FORGET_TIMEOUT_S = 60.0


def forget(client: Client, scope: str, keys: Iterable[str]) -> None:
    """Forget the entries that there are with these keys; raise `RunUnstored` if one stays."""
    trouble: TaskVaultError | None = None
    for key in keys:
        try:
            client.call(RemoveEntry(scope, key), timeout_s=FORGET_TIMEOUT_S)
        except TaskVaultError as exc:
            if not (isinstance(exc, Refused) and exc.kind == "KeyMissing"):
                trouble = trouble or exc
    if trouble is not None:
        raise RunUnstored(f"what was stored before could not be forgotten: {trouble}") from trouble
