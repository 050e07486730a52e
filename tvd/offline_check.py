"""`tvd --fsck`: checks a stopped vault and says what it found, one JSON object a line; the last one sums up."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TextIO

from tvfs.catalog.rocks import CatalogLocked
from tvfs.errors import TaskVaultError
from tvfs.fsck.finding import Finding
from tvfs.fsck.run import fsck
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.lock import VaultInUse


class FsckExit(IntEnum):
    """What the exit status says."""

    CLEAN = 0
    FINDINGS = 1
    VAULT_IN_USE = 3
    NOT_REPAIRED = 5


def run(home: Path, *, dry: bool, content: bool) -> int:
    """Check and, unless `dry`, repair a vault; return the exit status."""
    told = partial(_tell, sys.stdout)
    try:
        with redirect_stdout(sys.stderr):  # what plugins print is no finding
            report = fsck(home, PluginRegistry(), dry=dry, content=content, told=told)
    except (VaultInUse, CatalogLocked) as exc:
        _complain(f"{exc} Nothing was changed.")
        return FsckExit.VAULT_IN_USE
    except TaskVaultError as exc:
        _complain(f"The check stopped: {exc}")
        return FsckExit.NOT_REPAIRED
    except OSError as exc:
        where = f": {exc.filename}" if exc.filename else ""
        _complain(f"The check stopped: {exc.strerror or exc}{where}. See to it, and run it again.")
        return FsckExit.NOT_REPAIRED
    except Exception as exc:  # noqa: BLE001 - the outermost line: what broke must not look like what was found
        _complain(f"The check broke ({type(exc).__name__}: {exc}); the vault is no worse for it. Run it again.")
        return FsckExit.NOT_REPAIRED
    _print(sys.stdout, {"count": report.count, "clean_stop": report.clean})
    return FsckExit.FINDINGS if report.count else FsckExit.CLEAN


def _tell(out: TextIO, finding: Finding) -> None:
    _print(out, asdict(finding))


def _print(out: TextIO, value: dict[str, object]) -> None:
    # Whoever reads may have gone; a repair that has begun goes on.
    with suppress(OSError, ValueError):
        print(json.dumps(value), file=out, flush=True)


def _complain(sentence: str) -> None:
    with suppress(OSError, ValueError):
        print(f"tvd: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
