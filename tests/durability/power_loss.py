"""Lose power between any two system calls of a daemon under load: what was promised is there, and fsck finds nothing.

`python -m tests.durability.power_loss --seed 1 --steps 300 --cuts 400`.  The daemon is real and strace records what it
and its clients do to files; then, for prefixes of that, the vault is made again with what was not synced dropped, kept
or torn, opened as after another boot of the machine, and compared with the ledger of that moment.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.durability.disk import Disk, Fate
from tests.durability.ledger import Ledger, Value, lines_of
from tests.durability.recording import SYNCS, Moment, moments, record
from tests.unit.fsck.sample_vault import CALLER, World, opened
from tests.vaults_in_order import MEMORY, check, wrong
from tvfs.errors import TaskVaultError
from tvfs.filesystem.model import ROOT

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Recording:
    """A load that was recorded, and where."""

    place: Path
    moments: list[Moment]

    @property
    def home(self) -> Path:
        return self.place / "vault"

    def is_ledger(self, moment: Moment) -> bool:
        return moment.call.paths[0] == str(self.place / "ledger") and moment.call.name == "write"


@dataclass
class Outcome:
    """What came of losing power at some moments."""

    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    promises: int = 0
    """Facts that had been promised at the last of them."""


@contextmanager
def recorded(seed: int, steps: int, *, broken: str = "") -> Iterator[Recording]:
    """Have a load recorded, in memory: every sync is as quick as any other call, and none is left out."""
    base = Path(tempfile.mkdtemp(prefix="tv-power-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        place = base / "place"
        place.mkdir()
        command = [sys.executable, "-m", "tests.durability.recorded_work", str(place), str(seed), str(steps), broken]
        environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}"}
        record(command, base / "trace", cwd=REPOSITORY, env=environment, timeout=600)
        recording = Recording(place, list(moments(base / "trace", place)))
        (base / "trace").unlink()
        yield recording
    finally:
        shutil.rmtree(base)


def assert_all_is_recorded(recording: Recording) -> None:
    """Fail unless all that was recorded makes the vault that is there, byte by byte."""
    disk = Disk(recording.home)
    for moment in recording.moments:
        disk(moment)
    there = {
        str(path.relative_to(recording.home)): path.read_bytes()
        for path in recording.home.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    made = disk.files()
    differing = sorted(path for path in there.keys() | made.keys() if there.get(path) != made.get(path))
    assert not differing, f"the recording tells otherwise of {differing}"


def lose_power(recording: Recording, *, cuts: int, seed: int, fates: tuple[Fate, ...] = tuple(Fate)) -> Outcome:
    """Lose power at so many moments, chosen by lot but the last, and compare; those where nothing differs are not."""
    dice = random.Random(seed)
    outcome = Outcome()
    disk, ledger = Disk(recording.home), Ledger()
    worth = [
        number for number, moment in enumerate(recording.moments)
        if recording.is_ledger(moment) or _is_of(moment, recording.home)
    ]  # fmt: skip
    made = _is_made(recording)
    worth = [number for number in worth if number > made]
    chosen = {*dice.sample(worth, min(cuts, len(worth))), worth[-1]}
    for number, moment in enumerate(recording.moments):
        disk(moment)
        if recording.is_ledger(moment) and moment.ends:
            for line in lines_of(moment.call.content):
                ledger.note(line)
        if number in chosen:
            for fate in fates:
                outcome.states[fate.value] += 1
                found = _what_is_wrong(disk, fate, dice, ledger)
                outcome.wrong += [f"moment {number}, {fate.value}: {sentence}" for sentence in found]
    outcome.promises = ledger.promises
    return outcome


def _is_made(recording: Recording) -> int:
    """Return the moment from which on there is a vault: its format has its name, and the directory was synced since."""
    named = next(n for n, m in enumerate(recording.moments) if m.call.paths[-1] == str(recording.home / "format"))
    syncs = (n for n, m in enumerate(recording.moments) if n > named and m.ends and m.call.name in SYNCS)
    return next(syncs)


def _is_of(moment: Moment, home: Path) -> bool:
    """Whether the disk may differ from now on: a sync has ended, or something was done."""
    if not moment.call.paths[0].startswith(f"{home}/"):
        return False
    return moment.ends and (moment.call.name in SYNCS or not moment.call.name.startswith("open"))


def _what_is_wrong(disk: Disk, fate: Fate, dice: random.Random, ledger: Ledger) -> list[str]:
    base = Path(tempfile.mkdtemp(prefix="tv-left-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        home = base / "vault"
        disk.leave(home, fate, dice)
        return trio.run(_opened_and_compared, home, ledger)
    finally:
        shutil.rmtree(base)


async def _opened_and_compared(home: Path, ledger: Ledger) -> list[str]:
    report = check(home)
    found = [f"fsck before a start: {sentence}" for sentence in wrong(report)] if report is not None else []
    try:
        async with opened(home) as world:
            values = {path: await value_of(world, path) for path in ledger.allowed}
            found += ledger.wrong(values.__getitem__)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is what we look for
        return [*found, f"it cannot be opened: {exc!r} {getattr(exc, 'exceptions', '')}"]
    report = check(home)
    return found + ([f"fsck after it: {sentence}" for sentence in wrong(report)] if report is not None else [])


async def value_of(world: World, path: str) -> Value:
    """Return what programs read below the mount; an error, where that is what they get, as if it were content."""
    fs = world.filesystem
    ino = ROOT
    for name in path.split("/"):
        try:
            ino = fs.resolve(name.encode(), ino)
        except TaskVaultError:
            return None
    size = fs.getattr(ino).size
    handle = await fs.open(ino, os.O_RDONLY, CALLER)
    try:
        parts = b""
        while len(parts) < size:
            part = bytes(await fs.read(handle, len(parts), 1 << 20))
            if not part:
                return parts + b"<the file ends before its size>"
            parts += part
        return parts
    except TaskVaultError as exc:
        return f"<{exc}>".encode()
    finally:
        fs.release(handle)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="each with the next seed")
    parser.add_argument("--steps", type=int, default=300, help="of the load that is recorded")
    parser.add_argument("--cuts", type=int, default=300, help="moments at which power is lost, each with every fate")
    parser.add_argument("--broken", default="", help="a daemon without this sync: it must be noticed")
    arguments = parser.parse_args()
    failed = False
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        with recorded(seed, arguments.steps, broken=arguments.broken) as recording:
            assert_all_is_recorded(recording)
            outcome = lose_power(recording, cuts=arguments.cuts, seed=seed)
            calls = len(recording.moments) // 2
        print(
            f"seed {seed}: {calls} system calls, {outcome.promises} promises, states {dict(outcome.states)}:"
            f" {len(outcome.wrong)} wrong", flush=True,
        )  # fmt: skip
        for sentence in outcome.wrong[:20]:
            print(f"  {sentence}", flush=True)
        failed |= bool(outcome.wrong)
    return failed


if __name__ == "__main__":
    sys.exit(main())
