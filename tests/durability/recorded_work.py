"""What is recorded: a daemon, a load on its mount, and the ledger: `recorded_work DIR SEED STEPS [BROKEN]`.

DIR gets `vault/`, `ledger` and `outside/`.  In the middle the daemon is killed and started again; at the end it is
killed, so that nothing is put in order.
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

from taskvault.client import Client
from taskvault.protocol import messages as m
from tests.daemon.conftest import Daemon
from tests.durability.ledger import LedgerFile
from tests.durability.work import Saver, Writer

ENVIRONMENT = {
    # Less than the work writes, so that catalogs write tables and remove logs, and packs are compacted.
    "TASKVAULT_MEMORY_MEMTABLES_BYTES": "4M",
    "TASKVAULT_RECLAIM_INTERVAL_S": "0.5",
    "TASKVAULT_RECLAIM_DEAD_FRACTION": "0.02",
    "TASKVAULT_VAULT_CAPACITY_BYTES": "512M",
}


def main(place: Path, seed: int, steps: int, broken: str) -> None:
    rng = random.Random(seed)
    ledger = LedgerFile(place / "ledger")
    (place / "outside").mkdir()
    daemon = Daemon(place / "vault", module="tests.durability.broken_daemon" if broken else "tvd")
    told = daemon.start(mounted=True, env={**ENVIRONMENT, "TASKVAULT_BROKEN": broken})
    assert told["ok"], told
    try:
        writer = Writer(daemon.mount, "files", random.Random(rng.random()), ledger)
        writer.begin()
        saver = Saver(daemon.home, daemon.mount, place / "outside", random.Random(rng.random()), ledger)
        for step in range(steps):
            if rng.random() < 0.25:
                saver.step()
            else:
                writer.step()
            if step % 40 == 39:
                seal(daemon)
            if step == steps // 2:
                # What the next one puts in order may be cut off too.
                daemon.kill()
                assert daemon.start(mounted=True, env={**ENVIRONMENT, "TASKVAULT_BROKEN": broken})["ok"]
        daemon.kill()
    finally:
        daemon.clean_up()
        shutil.rmtree(place / "outside")
        ledger.close()


def seal(daemon: Daemon) -> None:
    """Have everything sealed that nobody has open, so that files are also written upon what is in packs."""
    with Client.connect(daemon.home, timeout_s=20) as client:
        client.call(m.SnapshotLive("work/files"), timeout_s=60)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else "")
