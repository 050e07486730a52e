"""Steps that drive the store's real parts beside a model of them, and a driver that takes them at random.

    python -m tests.model.store_steps --steps 20000 --seed 7

Every life of a vault has its own seed, printed when something is wrong; `--life SEED` runs that one again.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
import trio
from trio.testing import MockClock

from tests.model.inline_threads import inline_threads
from tests.model.store_actions import Actions
from tests.model.store_model import Wrong, demand
from tvfs.vault import collector

LIFE_STEPS = 2000
"""Steps of one vault; then nothing is wanted any more, and nothing may stay."""
REFEREE_EVERY = 25
CAPACITIES = (3 << 20, 5 << 20, 64 << 20)
"""The small ones are full now and then."""

Step = Callable[[Actions], Awaitable[None]]

WEIGHTS: dict[str, int] = {
    "send_chunks": 6,
    "send_blob": 4,
    "send_tree": 10,
    "send_long_manifest": 1,
    "send_and_die": 3,
    "send_what_is_dead": 5,
    "end_holder": 6,
    "bind": 14,
    "remove": 4,
    "pin": 3,
    "unpin": 3,
    "use": 8,
    "begin_reading": 4,
    "wait": 8,
    "attach": 4,
    "detach": 4,
    "write": 4,
    "stage_over": 3,
    "seal": 2,
    "snapshot": 2,
    "sweep": 3,
    "collect": 8,
    "compact": 6,
    "die_while_collecting": 1,
    "die_while_compacting": 2,
    "evict": 3,
    "expire": 2,
    "look_after": 2,
    "fill": 3,
    "ask_at_the_limit": 3,
    "damage": 2,
    "kill": 1,
    "lose_power": 2,
    "stop_and_start": 1,
    "together": 14,
}
STEPS = tuple(WEIGHTS)


class Driver:
    """Takes steps in one vault, and has the referee look."""

    def __init__(self, home: Path, seed: int, mock: MockClock, *, referee_every: int = REFEREE_EVERY) -> None:
        self.draw = random.Random(seed)
        self.actions = Actions(home, self.draw, mock, capacity_bytes=self.draw.choice(CAPACITIES))
        self.mix: Counter[str] = Counter()
        self.trace: list[str] = []
        self._referee_every = referee_every

    @property
    def steps(self) -> int:
        """How many were taken."""
        return sum(self.mix.values())

    @property
    def checks(self) -> int:
        """How often the referee looked."""
        return self.actions.referee.checks

    async def take(self, name: str) -> None:
        """Take a step, and check what is always so; now and then all of it."""
        self.mix[name] += 1
        self.trace.append(name)
        await self.actions.take(name)
        if self.steps % self._referee_every == 0:
            await self.actions.referee.check()

    async def take_many(self, count: int) -> None:
        """Take steps at random."""
        names = self.draw.choices(STEPS, tuple(WEIGHTS.values()), k=count)
        for name in names:
            await self.take(name)

    async def finish(self) -> None:
        """Let everything go: nothing that is unwanted stays."""
        await self.actions.referee.check()
        await self.actions.let_everything_go()
        await self.actions.aclose()


@contextmanager
def driven() -> Iterator[Path]:
    """Give a directory in memory, threads that a seed decides on, slices of one step, and no silent error."""
    parent = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(prefix="tv-model-", dir=parent if parent.is_dir() else None))
    watcher = _NoErrors(logging.ERROR)
    logging.getLogger("tvfs").addHandler(watcher)
    steps_a_slice = collector.STEPS_A_SLICE
    collector.STEPS_A_SLICE = 1
    structured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined]
    try:
        with inline_threads():
            yield home
    finally:
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = False  # type: ignore[attr-defined]
        structlog.configure(**structured)
        collector.STEPS_A_SLICE = steps_a_slice
        logging.getLogger("tvfs").removeHandler(watcher)
        shutil.rmtree(home, ignore_errors=True)


class _NoErrors(logging.Handler):
    """An error that is only logged is one: a count that became too low, say."""

    def emit(self, record: logging.LogRecord) -> None:
        raise Wrong(record.getMessage())


class Failure(AssertionError):
    """A life went wrong; says how to have it again."""

    def __init__(self, seed: int, steps: int, trace: Sequence[str], cause: BaseException) -> None:
        super().__init__(
            f"life {seed} went wrong at step {steps} ({', '.join(trace[-6:])}): {type(cause).__name__}: {cause};"
            f" again: python -m tests.model.store_steps --life {seed}"
        )
        self.steps = steps
        self.total_steps = steps
        """With those of the lives before."""
        self.cause = cause


def live(
    seed: int, *, count: int = LIFE_STEPS, names: Sequence[str] | None = None, referee_every: int = REFEREE_EVERY
) -> Driver:
    """Run one vault from its making to its end, with steps at random or these; raise `Failure`."""
    drivers: list[Driver] = []

    async def run(home: Path, mock: MockClock) -> None:
        trio._core._run._r.seed(seed)  # type: ignore[attr-defined]
        driver = Driver(home, seed, mock, referee_every=referee_every)
        drivers.append(driver)
        with driver.actions.world.synced.watching():
            if names is None:
                await driver.take_many(count)
            for name in names or ():
                await driver.take(name)
            await driver.finish()

    with driven() as home:
        mock = MockClock(autojump_threshold=0)
        try:
            trio.run(run, home, mock, clock=mock)
        except Exception as exc:
            driver = drivers[0] if drivers else None
            raise Failure(seed, driver.steps if driver else 0, driver.trace if driver else [], _first(exc)) from exc
    return drivers[0]


def _first(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


class Total:
    """Sums over lives."""

    def __init__(self) -> None:
        self.mix: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.checks = 0
        self.lives = 0
        self.failures: list[Failure] = []
        self.began_s = time.monotonic()

    @property
    def steps(self) -> int:
        """How many were taken."""
        return sum(self.mix.values())

    def add(self, driver: Driver) -> None:
        """Count a life."""
        self.mix += driver.mix
        self.happened += driver.actions.happened
        self.checks += driver.checks
        self.lives += 1

    def report(self) -> str:
        """Say what was done."""
        took_s = time.monotonic() - self.began_s
        lines = [f"{self.steps} steps in {self.lives} lives, {self.checks} checks by the referee, {took_s:.0f} s"]
        lines += ["steps:"] + [f"  {count:8d} {name}" for name, count in self.mix.most_common()]
        lines += ["what happened in them:"] + [f"  {count:8d} {name}" for name, count in self.happened.most_common()]
        return "\n".join(lines)


def run_lives(steps: int, seed: int, *, progress_every: int = 0, keep_going: bool = False) -> Total:
    """Run as many lives as it takes; raise `Failure`, or note it if it is to `keep_going`."""
    total = Total()
    number = 0
    while total.steps < steps:
        try:
            total.add(live(seed + number, count=min(LIFE_STEPS, steps - total.steps)))
        except Failure as failure:
            failure.total_steps = total.steps + failure.steps
            if not keep_going:
                raise
            total.failures.append(failure)
            print(failure, flush=True)
        number += 1
        if progress_every and number % progress_every == 0:
            print(f"{total.steps} steps, {total.checks} checks, seeds {seed}..{seed + number - 1}", flush=True)
    demand(total.steps >= steps, "all steps were taken")
    return total


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first life; the next ones follow")
    parser.add_argument("--life", type=int, help="run one life again, by its seed")
    parser.add_argument("--keep-going", action="store_true", help="go on with the next life when one went wrong")
    parser.add_argument("--plant", help="with a planted bug: see tests/model/planted.py")
    wanted = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets must be the same again, too
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.model.store_steps", *sys.argv[1:]])
    if wanted.plant:
        from tests.model.planted import PLANTED

        PLANTED[wanted.plant].plant().__enter__()
    if wanted.life is not None:
        print(live(wanted.life).actions.happened)
        return 0
    total = run_lives(wanted.steps, wanted.seed, progress_every=10, keep_going=wanted.keep_going)
    last = wanted.seed + total.lives + len(total.failures) - 1
    print(f"seeds {wanted.seed}..{last}: {f'{len(total.failures)} went wrong' if total.failures else 'clean'}")
    print(total.report())
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
