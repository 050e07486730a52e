"""A Hypothesis state machine that does the same on a mount and on a tmpfs, and compares them.

`python -m tests.posix.twin_machine --steps 100000 --seed 1 --way kernel`.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections import Counter
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.posix.places import MEMORY, WAYS, Mount, mounted, plain_directory
from tests.posix.twin import OtherProcess, Twin

NAMES = (b"a", b"b", b"c\xff")
EXAMPLE_STEPS = 100
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE = 1, 2
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(b"/".join)
files = st.one_of(st.sampled_from((b"a", b"b/a", b"b/b")), paths)
"""More often than not where a file may be: much of what is drawn without thought is refused."""
offsets = st.sampled_from((0, 1, 511, 4_095, 4_096, 131_071, 131_072, 200_000, 1_100_000))
contents = st.tuples(st.binary(min_size=1, max_size=1), st.sampled_from((0, 1, 10, 4_096, 5_000, 150_000))).map(
    lambda drawn: drawn[0] * drawn[1]
)
slots = st.integers(0, 2)
kinds = st.sampled_from((stat.S_IFREG | 0o640, stat.S_IFIFO | 0o600, stat.S_IFSOCK | 0o644))
open_flags = st.sampled_from(
    (os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_TRUNC)
)
write_flags = st.sampled_from((0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC))
ranges = st.sampled_from((0, PUNCH_HOLE | KEEP_SIZE))


class Places:
    """The mount and the tmpfs that all examples share, each in a directory of its own."""

    def __init__(self, mount: Mount, plain: Path, *, ranges: bool) -> None:
        self.mount = mount
        self.plain = plain
        self.ranges = ranges
        self.other = OtherProcess()
        self.mix: Counter[str] = Counter()
        self.numbers = count()


class TwinMachine(RuleBasedStateMachine):
    """To be subclassed with `places`."""

    places: Places

    @initialize()
    def begin(self) -> None:
        shared = self.places
        name = f"example{next(shared.numbers)}"
        self.twin = Twin(shared.mount, name, shared.plain, shared.other, ranges=shared.ranges)
        self.twin.mkdir(b"b")
        for number, path in enumerate((b"a", b"b/a", b"b/b")):
            self.twin.write(path, os.O_CREAT, 0, b"content" * 30_000 * number)
        self.twin.open(0, b"a", os.O_RDWR)

    def teardown(self) -> None:
        if hasattr(self, "twin"):
            try:
                self.twin.compare()
                self.twin.let_go()
                self.twin.compare()
            finally:
                self.twin.let_go()
                self.places.mix += self.twin.mix

    @rule(path=paths)
    def mkdir(self, path: bytes) -> None:
        self.twin.mkdir(path)

    @rule(path=paths, mode=kinds)
    def make(self, path: bytes, mode: int) -> None:
        self.twin.make(path, mode)

    @rule(path=paths, leads_to=st.sampled_from((b"a", b"../b", b"nowhere")))
    def symlink(self, path: bytes, leads_to: bytes) -> None:
        self.twin.symlink(path, leads_to)

    @rule(path=paths)
    def unlink(self, path: bytes) -> None:
        self.twin.unlink(path)

    @rule(path=paths)
    def rmdir(self, path: bytes) -> None:
        self.twin.rmdir(path)

    @rule(old=paths, new=paths)
    def link(self, old: bytes, new: bytes) -> None:
        self.twin.link(old, new)

    @rule(old=paths, new=paths, flags=st.sampled_from((0, 0, 0, NOREPLACE, EXCHANGE)))
    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        self.twin.rename(old, new, flags)

    @rule(path=paths, mode=st.sampled_from((0o600, 0o755, 0o6711)))
    def chmod(self, path: bytes, mode: int) -> None:
        self.twin.chmod(path, mode)

    @rule(path=paths, uid=st.sampled_from((-1, 0, 1234)), gid=st.sampled_from((-1, 4321)))
    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self.twin.chown(path, uid, gid)

    @rule(path=paths, seconds=st.sampled_from((0, 1, 10**9 - 1)))
    def set_times(self, path: bytes, seconds: int) -> None:
        self.twin.set_times(path, seconds)

    @rule(path=files, value=st.sampled_from((None, b"", b"value" * 20)))
    def set_attribute(self, path: bytes, value: bytes | None) -> None:
        self.twin.set_attribute(path, "user.name", value)

    @rule(path=files, flags=write_flags, offset=offsets, content=contents)
    def write(self, path: bytes, flags: int, offset: int, content: bytes) -> None:
        self.twin.write(path, flags, offset, content)

    @rule(path=files, content=contents)
    def append_from_elsewhere(self, path: bytes, content: bytes) -> None:
        self.twin.append_from_elsewhere(path, content)

    @rule(path=files, size=offsets)
    def truncate(self, path: bytes, size: int) -> None:
        self.twin.truncate(path, size)

    @rule(old=files, new=paths)
    def copy(self, old: bytes, new: bytes) -> None:
        self.twin.copy(old, new)

    @rule(slot=slots, path=files, flags=open_flags)
    def open(self, slot: int, path: bytes, flags: int) -> None:
        self.twin.open(slot, path, flags)

    @rule(slot=slots)
    def close(self, slot: int) -> None:
        self.twin.close(slot)

    @rule(slot=slots, offset=st.one_of(st.none(), offsets), content=contents)
    def write_open(self, slot: int, offset: int | None, content: bytes) -> None:
        self.twin.write_open(slot, offset, content)

    @rule(slot=slots, offset=offsets, length=st.sampled_from((1, 4_096, 200_000)))
    def read_open(self, slot: int, offset: int, length: int) -> None:
        self.twin.read_open(slot, offset, length)

    @rule(slot=slots, size=offsets)
    def truncate_open(self, slot: int, size: int) -> None:
        self.twin.truncate_open(slot, size)

    @rule(slot=slots)
    def sync_and_stat(self, slot: int) -> None:
        self.twin.sync(slot)
        self.twin.stat_open(slot)

    @rule(slot=slots, mode=ranges, offset=offsets, length=st.sampled_from((1, 4_096, 140_000)))
    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        self.twin.fallocate(slot, mode, offset, length)

    @rule(slot=slots)
    def map(self, slot: int) -> None:
        self.twin.map(slot)

    @rule(slot=slots, offset=offsets, content=contents, flush=st.booleans())
    def store(self, slot: int, offset: int, content: bytes, flush: bool) -> None:
        self.twin.store(slot, offset, content, flush=flush)

    @rule(slot=slots, offset=offsets, length=st.sampled_from((1, 4_096, 200_000)))
    def load(self, slot: int, offset: int, length: int) -> None:
        self.twin.load(slot, offset, length)

    @rule()
    def compare(self) -> None:
        self.twin.compare()

    @precondition(lambda self: self.twin.mix.total() > 10)
    @rule(anew=st.integers(0, 5))
    def rest(self, anew: int) -> None:
        self.twin.mount_anew() if not anew else self.twin.seal()
        self.twin.compare()


def run(way: str, seed: int, examples: int, *, steps: int = EXAMPLE_STEPS, shrink: bool = False) -> Counter[str]:
    """Run examples from a seed on a mount; return how many steps of each kind."""
    with ExitStack() as stack:
        mount = stack.enter_context(mounted(way))
        plain = stack.enter_context(plain_directory(MEMORY))
        places = Places(mount, plain, ranges=way != "pyfuse3")
        stack.callback(places.other.close)
        machine = type("Machine", (TwinMachine,), {"places": places})
        chosen = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            print_blob=True,
        )
        run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=chosen)
        return places.mix


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="in all, for each way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, action="append", help="all, if none is named")
    parser.add_argument("--shrink", action="store_true", help="make what fails as short as can be")
    arguments = parser.parse_args()
    for way in arguments.way or WAYS:
        mix: Counter[str] = Counter()
        began_s, seed = time.monotonic(), arguments.seed
        while mix.total() < arguments.steps:
            mix += run(way, seed, 50, shrink=arguments.shrink)
            print(f"{way}: seeds {arguments.seed}..{seed}, {mix.total()} steps", flush=True)
            seed += 1
        took_s = time.monotonic() - began_s
        print(f"{way}: {mix.total()} steps, clean, {took_s:.0f} s: {dict(mix.most_common())}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
