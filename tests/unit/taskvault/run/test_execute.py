"""What a command writes is passed on, whole."""

from __future__ import annotations

import fcntl
import os

import pytest

from taskvault.run import execute
from taskvault.run.execute import Captured, _pass_on


class Ending:
    """A command that writes its last words and ends when it is looked at for the `looks`-th time."""

    def __init__(self, looks: int, *, left_behind: bool) -> None:
        reading, self._out = os.pipe()
        self.stdout = os.fdopen(reading, "rb", buffering=0)
        reading, self._err = os.pipe()
        self.stderr = os.fdopen(reading, "rb", buffering=0)
        self._looks = looks
        self._left_behind = left_behind
        self.ended = False

    def poll(self) -> int | None:
        self._looks -= 1
        if self._looks == 0:
            os.write(self._out, b"last words\n")
            self.ended = True
            if not self._left_behind:
                self.close()
        return 0 if self.ended else None

    def close(self) -> None:
        os.close(self._out)
        os.close(self._err)


@pytest.mark.parametrize("looks", [1, 2, 3])
@pytest.mark.parametrize("left_behind", [False, True])
def test_what_is_written_between_two_looks_is_not_lost(
    looks: int, left_behind: bool, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(execute, "LINGER_S", 0.001)
    command, captured = Ending(looks, left_behind=left_behind), Captured()
    _pass_on(command, captured)  # type: ignore[arg-type]
    assert capfdbinary.readouterr().out == b"last words\n"
    assert bool(captured.incomplete) == left_behind
    captured.close()
    if left_behind:
        command.close()


def test_what_a_slow_reader_has_not_taken_yet_is_not_left_in_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = [0.0], bytearray()

    class Time:
        @staticmethod
        def monotonic() -> float:
            return clock[0]

    def slowly(_stream: int, part: bytes, *_: object) -> None:
        shown.extend(part)
        clock[0] += 2 * execute.MOST_LINGER_S

    monkeypatch.setattr(execute, "time", Time)
    monkeypatch.setattr(execute, "_echo", slowly)
    command, captured = Ending(1, left_behind=False), Captured()
    room = fcntl.fcntl(command._out, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(command._out, b"x" * (room - 100))
    _pass_on(command, captured)  # type: ignore[arg-type]
    assert len(shown) == room - 100 + len(b"last words\n")
    assert captured.incomplete == ""
    captured.close()
