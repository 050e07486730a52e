"""Kill the daemon at random moments under load, again and again: nothing promised is lost, and `tv up` alone mends it.

`python -m tests.durability.crash_loop --rounds 500 --seed 1`.  In half of the rounds, by lot, only the daemon is killed
and its mount goes on with the next one; in the others whoever keeps the mount too, so that the mount is dead.  fsck,
dry, must find nothing in any round, before the vault is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.durability.ledger import Ledger, Line, Value
from tests.durability.work import Saver, Writer
from tests.vaults_in_order import check, wrong
from tvfs.errors import TaskVaultError

REPOSITORY = Path(__file__).parents[2]
WRITERS = 3
LOAD_S, LONGEST_LOAD_S = 0.8, 6.0
"""On average, and at most: files are sealed a second after they were closed."""
COMMAND_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Round:
    """One kill, and the start after it."""

    mount_kept: bool
    dirty_files: int
    """Staging files that the next daemon has to take in."""
    log_bytes: int
    """Of the catalog's log, which the next daemon replays."""
    recovery_s: float
    """Of `tv up`, from the command to its end: an interpreter starts twice in it."""


@dataclass
class Loop:
    """One vault that is killed again and again."""

    home: Path
    seed: int
    ledger: Ledger = field(default_factory=lambda: Ledger(power_is_kept=True))
    rounds: list[Round] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._mount = self.home / "mnt"
        self._outside = self.home.parent / "outside"
        self._outside.mkdir()
        self._environment = {**os.environ, "TASKVAULT_HOME": str(self.home), "TASKVAULT_VAULT_CAPACITY_BYTES": "2G"}
        self._environment["PYTHONPATH"] = f"{REPOSITORY}:{REPOSITORY / 'plugins'}"
        names = [f"writer{number}" for number in range(WRITERS)]
        self._writers = [Writer(self._mount, name, self._new_dice(), self._announce) for name in names]
        self._saver = Saver(self.home, self._mount, self._outside, self._new_dice(), self._announce)

    def tv(self, *words: str, may_fail: bool = False) -> str:
        """Run a command; raise if it fails."""
        command = [sys.executable, "-m", "taskvault", *words]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
        assert may_fail or not done.returncode, f"tv {' '.join(words)}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout

    def run(self, rounds: int, told: Callable[[Round], None] = lambda _: None) -> None:
        """Make the vault, kill it so often, and compare at the end once more after it was stopped in order."""
        self.tv("up")
        for _ in range(rounds):
            self.rounds.append(self._round())
            told(self.rounds[-1])
        self.tv("down")
        self._fsck()
        self.tv("up")
        self.wrong += self.ledger.settle(self._value)
        self.tv("down")

    def _round(self) -> Round:
        for worker in (*self._writers, self._saver):
            worker.begin(self.ledger.allowed)
        daemon, caretaker = self._processes()
        mount_kept = self._dice.random() < 0.5
        self._over.clear()
        threads = [threading.Thread(target=self._work, args=(worker,)) for worker in (*self._writers, self._saver)]
        for thread in threads:
            thread.start()
        time.sleep(min(self._dice.expovariate(1 / LOAD_S), LONGEST_LOAD_S))
        if not mount_kept:
            os.kill(caretaker, signal.SIGKILL)
        os.kill(daemon, signal.SIGKILL)
        self._over.set()
        self._fsck()
        dirty_files, log_bytes = self._dirt()
        began_s = time.perf_counter()
        self.tv("up")
        recovery_s = time.perf_counter() - began_s
        for thread in threads:
            thread.join(COMMAND_TIMEOUT_S)
            assert not thread.is_alive(), "somebody still waits for the mount"
        self.wrong += [f"round {len(self.rounds)}: {each}" for each in self.ledger.settle(self._value)]
        return Round(mount_kept, dirty_files, log_bytes, recovery_s)

    def _work(self, worker: Writer | Saver) -> None:
        # What cannot be done while nobody serves is announced and not promised; what was found decides.
        with suppress(OSError, TaskVaultError):
            while not self._over.is_set():
                worker.step()
                self.steps += 1

    def _announce(self, line: Line) -> None:
        with self._lock:
            self.ledger.note(line)

    def _fsck(self) -> None:
        """Look at the vault as it lies there, before anybody puts it in order."""
        lock = self.home / "lock"
        # The kernel closes a killed process's files a moment after it is gone.
        deadline_s = time.monotonic() + 10
        while (report := check(self.home)) is None:
            assert time.monotonic() < deadline_s, f"somebody still has {lock}"
            time.sleep(0.02)
        self.wrong += [f"round {len(self.rounds)}: fsck: {each}" for each in wrong(report)]

    def _processes(self) -> tuple[int, int]:
        daemon = int(json.loads(self.tv("status", "--json"))["pid"])
        status = Path(f"/proc/{daemon}/status").read_text()
        return daemon, int(status.partition("PPid:\t")[2].split()[0])

    def _dirt(self) -> tuple[int, int]:
        staged = sum(path.is_file() for path in (self.home / "staging").rglob("*") if path.suffix != ".map")
        return staged, sum(path.stat().st_size for path in (self.home / "meta").glob("*.log"))

    def _value(self, path: str) -> Value:
        try:
            descriptor = os.open(self._mount / path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            # What the kernel remembers says nothing about the vault.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return file.read()

    def _new_dice(self) -> random.Random:
        return random.Random(self._dice.random())


@contextmanager
def loop(seed: int) -> Iterator[Loop]:
    """Have a place for a vault, and nothing left of it afterwards."""
    base = Path(tempfile.mkdtemp(prefix="tv-crash-"))
    made = Loop(base / "vault", seed)
    try:
        yield made
    finally:
        made.tv("down", "--force", may_fail=True)
        subprocess.run(["umount", "-l", str(base / "vault" / "mnt")], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)


def report(made: Loop) -> str:
    """Say what came of it."""
    rounds = made.rounds
    by_dirt = sorted(rounds, key=lambda each: each.log_bytes)
    third = max(1, len(by_dirt) // 3)
    lines = [
        f"seed {made.seed}: {len(rounds)} kills ({sum(each.mount_kept for each in rounds)} with the mount kept),"
        f" {made.steps} steps, {made.ledger.promises} promises: {len(made.wrong)} wrong",
    ]
    for name, part in (("least", by_dirt[:third]), ("most", by_dirt[-third:])):
        lines.append(
            f"  the third with the {name} log: {median(each.log_bytes for each in part) / 1e6:.1f} MB,"
            f" {median(each.dirty_files for each in part):.0f} staged files:"
            f" tv up {median(each.recovery_s for each in part):.2f} s, at most"
            f" {max(each.recovery_s for each in part):.2f} s"
        )
    return "\n".join(lines + [f"  {sentence}" for sentence in made.wrong[:20]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with loop(arguments.seed) as made:

        def told(latest: Round) -> None:
            if len(made.rounds) % 10 == 0 or made.wrong:
                print(f"  {len(made.rounds)} {latest} {made.wrong[-2:]}", flush=True)

        made.run(arguments.rounds, told)
        print(report(made), flush=True)
        return bool(made.wrong)


if __name__ == "__main__":
    sys.exit(main())
