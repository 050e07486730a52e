"""Change one file at random in every way there is, and compare it with what it should be: fsx, in Python.

`python -m tests.posix.exerciser --steps 100000 --seed 1` on a mount of each way, which is mounted anew between phases.
Reads, writes, mapped reads and writes, truncation, appending, punched holes, zeroed and reserved ranges, copied ranges,
`fsync`, `msync`, closing and opening, resting until the file is sealed, and reading through a descriptor and a mapping
that were opened long before; every read is compared, and all of the file at the end of each phase.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.posix.places import WAYS, Mount, mounted

LONGEST_BYTES = 2 << 20
"""Twice of what is worth a copy that the kernel reads past the daemon."""
MOST_BYTES = 160 << 10
"""Longest read and write: more than a block of a staged file, and than a chunk."""
PHASE_STEPS = 2_000
PAGE = mmap.PAGESIZE
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
_libc = ctypes.CDLL(None, use_errno=True)


class Differs(AssertionError):
    """The file is not what it should be."""


class Exerciser:
    """One file and its model."""

    def __init__(self, path: Path, seed: int, *, ranges: bool, rest: Callable[[], None]) -> None:
        """`ranges`: whether the mount can punch, zero and reserve; `rest` returns when everything is sealed."""
        self.path = path
        self.random = random.Random(seed)
        self.model = bytearray()
        self.mix: Counter[str] = Counter()
        self.trace: list[str] = []
        self._descriptor = self._watcher = -1
        self._rest = rest
        self._actions: list[tuple[int, Callable[[], str]]] = [
            (10, self.read), (10, self.write), (5, self.mapped_read), (6, self.mapped_write), (4, self.truncate),
            (3, self.append), (3, self.reopen), (2, self.fsync), (1, self.rename), (1, self.empty), (1, self.copy),
            (1, self.sealed), (4, self.watch),
        ]  # fmt: skip
        if ranges:
            self._actions += [(2, self.punch), (2, self.zero), (1, self.reserve)]

    def open(self, flags: int = os.O_CREAT) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | flags, 0o644)

    def close(self) -> None:
        for descriptor in (self._descriptor, self._watcher):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._watcher = -1

    def run(self, steps: int) -> None:
        """Take steps at random; raise `Differs`, which has the last ones."""
        weights, actions = zip(*self._actions, strict=True)
        for action in self.random.choices(actions, weights, k=steps):
            self.trace = [*self.trace[-30:], f"{action.__name__} {action()}"]
            self.mix[action.__name__] += 1
            size = os.fstat(self._descriptor).st_size
            self.demand(size == len(self.model), f"size is {size}, not {len(self.model)}")

    def check(self) -> None:
        """Compare all of the file."""
        found = self.path.read_bytes()
        self.demand(found == self.model, f"content differs at {_first_difference(found, self.model)}")

    def demand(self, true: bool, what: str) -> None:
        if not true:
            raise Differs(f"{self.path.name}: {what}, after {'; '.join(self.trace[-12:])}")

    # --- steps: each says what it did

    def read(self) -> str:
        offset, length = self._range()
        self._compare(os.pread(self._descriptor, length, offset), offset, length)
        return f"{offset}+{length}"

    def write(self) -> str:
        offset, length = self._range(beyond=True)
        content = self._content(length)
        self.demand(os.pwrite(self._descriptor, content, offset) == length, "a write was short")
        self._put(offset, content)
        return f"{offset}+{length}"

    def append(self) -> str:
        content = self._content(self.random.randrange(1, 5_000))
        if len(self.model) + len(content) > LONGEST_BYTES:
            return "nothing"
        other = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(other, content)
        os.close(other)
        self.model += content
        return str(len(content))

    def mapped_read(self) -> str:
        if not self.model:
            return "nothing"
        offset, length = self._range()
        with mmap.mmap(self._descriptor, len(self.model), mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
            self._compare(mapped[offset : offset + length], offset, length)
        return f"{offset}+{length}"

    def mapped_write(self) -> str:
        if not self.model:
            return "nothing"
        offset, length = self._range()
        content = self._content(min(length, len(self.model) - offset))
        with mmap.mmap(self._descriptor, len(self.model)) as mapped:
            mapped[offset : offset + len(content)] = content
            if self.random.random() < 0.5:
                mapped.flush()
        self._put(offset, content)
        return f"{offset}+{length}"

    def truncate(self) -> str:
        size = self.random.choice((self.random.randrange(LONGEST_BYTES), max(0, len(self.model) - 5_000), self._edge()))
        if self.random.random() < 0.5:
            os.ftruncate(self._descriptor, size)
        else:
            os.truncate(self.path, size)
        self._resize(size)
        return str(size)

    def empty(self) -> str:
        os.close(self._descriptor)
        self.open(os.O_TRUNC)
        self.model.clear()
        return ""

    def reopen(self) -> str:
        os.close(self._descriptor)
        self.open()
        return ""

    def fsync(self) -> str:
        os.fsync(self._descriptor)
        return ""

    def sealed(self) -> str:
        """Everybody closes it until it is sealed; then two readers open it, so that a copy is made if it is long."""
        self.close()
        self._rest()
        self.check()
        self.check()
        self._watcher = os.open(self.path, os.O_RDONLY)
        self.open()
        return str(len(self.model))

    def watch(self) -> str:
        """Read through a descriptor that was opened when the file was sealed, or a mapping of it."""
        if self._watcher < 0 or not self.model:
            return "nothing"
        offset, length = self._range()
        if self.random.random() < 0.5:
            self._compare(os.pread(self._watcher, length, offset), offset, length)
        else:
            with mmap.mmap(self._watcher, len(self.model), mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
                self._compare(mapped[offset : offset + length], offset, length)
        return f"{offset}+{length}"

    def rename(self) -> str:
        """Another file, written beside it, takes its place."""
        beside = self.path.with_suffix(".new")
        content = self._content(self.random.randrange(LONGEST_BYTES // 4))
        beside.write_bytes(content)
        self.close()
        beside.rename(self.path)
        self.open()
        self.model[:] = content
        return str(len(content))

    def copy(self) -> str:
        source, length = self._range()
        target = self.random.randrange(LONGEST_BYTES - length)
        length = max(0, min(length, len(self.model) - source))
        if source < target + length and target < source + length:
            return "nothing"
        copied = os.copy_file_range(self._descriptor, self._descriptor, length, source, target) if length else 0
        self._put(target, bytes(self.model[source : source + copied]))
        return f"{source}+{copied} to {target}"

    def punch(self) -> str:
        offset, length = self._range()
        self._fallocate(PUNCH_HOLE | KEEP_SIZE, offset, length)
        end = min(offset + length, len(self.model))
        self.model[offset:end] = bytes(max(0, end - offset))
        return f"{offset}+{length}"

    def zero(self) -> str:
        offset, length = self._range(beyond=True)
        self._fallocate(ZERO_RANGE, offset, length)
        self._put(offset, bytes(length))
        return f"{offset}+{length}"

    def reserve(self) -> str:
        offset, length = self._range(beyond=True)
        self._fallocate(0, offset, length)
        self._resize(max(len(self.model), offset + length))
        return f"{offset}+{length}"

    # --- what they need

    def _edge(self) -> int:
        """An offset at, or one beside, a boundary of blocks or pages."""
        unit = self.random.choice((PAGE, 128 << 10))
        return max(0, self.random.randrange(LONGEST_BYTES // unit) * unit + self.random.choice((-1, 0, 0, 1)))

    def _range(self, *, beyond: bool = False) -> tuple[int, int]:
        end = LONGEST_BYTES if beyond else max(1, len(self.model))
        offset = min(self._edge() if self.random.random() < 0.4 else self.random.randrange(end), end - 1)
        longest = self.random.choice((16, PAGE, 3 * PAGE, MOST_BYTES))
        length = self.random.randrange(1, longest + 1)
        return offset, min(length, LONGEST_BYTES - offset)

    def _content(self, length: int) -> bytes:
        return (self.random.randbytes(min(length, 997)) * (length // 997 + 1))[:length]

    def _put(self, offset: int, content: bytes) -> None:
        if not content:
            return
        self._resize(max(len(self.model), offset))
        self.model[offset : offset + len(content)] = content

    def _resize(self, size: int) -> None:
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def _compare(self, found: bytes, offset: int, length: int) -> None:
        wanted = bytes(self.model[offset : offset + length])
        self.demand(found == wanted, f"{offset}+{length} differs at {_first_difference(found, wanted)}")

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        number = ctypes.c_int64
        if _libc.fallocate64(self._descriptor, mode, number(offset), number(length)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _first_difference(found: bytes | bytearray, wanted: bytes | bytearray) -> str:
    for offset, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"{offset}: {found[offset : offset + 8].hex()}, not {wanted[offset : offset + 8].hex()}"
    return f"its end: {len(found)} bytes, not {len(wanted)}"


def exercise(mount: Mount, seed: int, steps: int, *, ranges: bool) -> Counter[str]:
    """Take steps on one file, mounting anew between phases; return how many of each kind."""
    exerciser = Exerciser(mount.work / f"file{seed}", seed, ranges=ranges, rest=mount.rest)
    for phase in range(-(-steps // PHASE_STEPS)):
        exerciser.open()
        try:
            exerciser.run(min(PHASE_STEPS, steps - phase * PHASE_STEPS))
        finally:
            exerciser.close()
        exerciser.check()
        mount.again()
        exerciser.check()
    return exerciser.mix


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="for each way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, action="append", help="all, if none is named")
    arguments = parser.parse_args()
    for way in arguments.way or WAYS:
        with mounted(way) as mount:
            mix = exercise(mount, arguments.seed, arguments.steps, ranges=way != "pyfuse3")
        print(f"{way}: seed {arguments.seed}, {sum(mix.values())} steps, clean: {dict(mix.most_common())}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
