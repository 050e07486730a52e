"""Stopping in the middle of writing: what a write(2) has returned for is there afterwards, synced or not."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from taskvault.errors import Refused
from taskvault.protocol import messages as m
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel
WRITERS = 4
LEAST_BYTES = 2 << 20


class Writer(threading.Thread):
    """Writes as fast as it can, to one file after the other, until it is refused; never syncs."""

    def __init__(self, root: Path, number: int) -> None:
        super().__init__()
        self._root = root / f"{number}"
        self._root.mkdir()
        self._piece = bytes([number + 1]) * 30_000
        self.written: dict[str, int] = {}
        self.over = False

    @property
    def total(self) -> int:
        return sum(self.written.values())

    def run(self) -> None:
        number = 0
        try:
            while not self.over:
                number += 1
                name = f"f{number}"
                descriptor = os.open(self._root / name, os.O_WRONLY | os.O_CREAT)
                try:
                    for _ in range(20):
                        self.written[name] = self.written.get(name, 0) + os.write(descriptor, self._piece)
                finally:
                    os.close(descriptor)
        except OSError:
            pass

    def missing(self) -> list[str]:
        """Name what is not as it was written."""
        wrong = []
        for name, length in self.written.items():
            found = (self._root / name).read_bytes() if (self._root / name).exists() else b""
            if found[:length] != (self._piece * 21)[:length]:
                wrong.append(f"{name}: {len(found)} of {length}")
        return wrong


def working(daemon: Any) -> list[Writer]:
    writers = [Writer(daemon.mount / "work", number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    wait_until(lambda: all(writer.total > LEAST_BYTES for writer in writers))
    return writers


def end(writers: list[Writer]) -> None:
    for writer in writers:
        writer.over = True
        writer.join(30)
        assert not writer.is_alive()


@pytest.fixture(params=["kernel", "kernel-writeback", pytest.param("pyfuse3", marks=pytest.mark.slow)], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    transport, _, rest = request.param.partition("-")
    monkeypatch.setenv("TASKVAULT_MOUNT_TRANSPORT", transport)
    monkeypatch.setenv("TASKVAULT_MOUNT_PASSTHROUGH", "false" if rest else "true")


def test_sigterm_under_full_load_loses_nothing(daemon: Any) -> None:
    daemon.start(mounted=True)
    writers = working(daemon)
    assert daemon.stop(signal.SIGTERM) == 0
    end(writers)
    daemon.start(mounted=True)
    assert [writer.missing() for writer in writers] == [[]] * WRITERS
    assert daemon.stop() == 0


def test_a_stop_that_somebody_asks_for_is_refused_under_load_and_loses_nothing_when_it_is_forced(daemon: Any) -> None:
    daemon.start(mounted=True)
    with open(daemon.mount / "work" / "held", "w"), daemon.client() as client:
        writers = working(daemon)
        with pytest.raises(Refused, match=f"pid {os.getpid()}") as refused:
            client.call(m.Shutdown())
        assert refused.value.kind == "MountHeld"
        before = [writer.total for writer in writers]
        wait_until(lambda: all(writer.total > each for writer, each in zip(writers, before, strict=True)))
        client.call(m.Shutdown(force=True), timeout_s=60)
    assert daemon.wait() == 0
    end(writers)
    daemon.start(mounted=True)
    assert [writer.missing() for writer in writers] == [[]] * WRITERS
    assert daemon.stop() == 0
