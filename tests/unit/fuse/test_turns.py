"""Looking for the next request gives the processor away; to whom decides whether it is worth it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio

from tvfs.fuse import turns
from tvfs.fuse.turns import GIVEN_AWAY_S, LOOK_S, NO_LOOK_S, Turns


class Processor:
    """A clock that only yields and waits move on, and a pipe that a client writes to while we yield."""

    def __init__(self, asks: int) -> None:
        self.now_s = 1000.0
        self.yield_s = LOOK_S / 3
        self.yields = 0
        self._asks = asks

    def monotonic(self) -> float:
        return self.now_s

    def sched_yield(self) -> None:
        self.yields += 1
        self.now_s += self.yield_s
        os.write(self._asks, b"?")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def processor(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Processor:
    processor = Processor(pipe[1])
    monkeypatch.setattr(turns, "time", processor)
    monkeypatch.setattr(os, "sched_yield", processor.sched_yield)
    return processor


async def begun(pipe: tuple[int, int]) -> Turns:
    """Return what has just answered a request."""
    waiting = Turns()
    os.write(pipe[1], b"?")
    await waiting.wait_readable(pipe[0])
    os.read(pipe[0], 1)
    return waiting


async def test_the_next_request_is_looked_for_before_sleeping(processor: Processor, pipe: tuple[int, int]) -> None:
    waiting = await begun(pipe)
    for _ in range(3):
        await waiting.wait_readable(pipe[0])
        os.read(pipe[0], 1)
    assert processor.yields == 3


async def test_who_gave_the_processor_away_for_long_sleeps_for_a_while_instead(
    processor: Processor, pipe: tuple[int, int]
) -> None:
    waiting = await begun(pipe)
    processor.yield_s = GIVEN_AWAY_S * 1.5
    await waiting.wait_readable(pipe[0])
    os.read(pipe[0], 1)
    assert processor.yields == 1
    with trio.move_on_after(0.01) as slept:
        await waiting.wait_readable(pipe[0])
    assert slept.cancelled_caught
    assert processor.yields == 1

    processor.now_s += NO_LOOK_S
    waiting._turn_began = processor.now_s
    await waiting.wait_readable(pipe[0])
    assert processor.yields == 2, "it is tried again"
