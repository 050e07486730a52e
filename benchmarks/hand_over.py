"""How long clients of a mount wait for the next daemon: `python -m benchmarks.hand_over`.

One client asks something that no cache answers, again and again; the longest answer is the gap.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROUNDS = 25


def main() -> None:
    """Print the gaps in milliseconds: median, longest, shortest."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        home, mount = Path(directory, "vault"), Path(directory, "mount")
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "tvd", "--caretaker=1000,0", "--home", str(home), "--mount", str(mount)]
        caretaker = subprocess.Popen([*command, "--ready-fd", str(writing)], pass_fds=[writing])
        os.close(writing)
        with open(reading, "rb") as ready:
            assert json.loads(ready.readline())["ok"]
        for number in range(200):
            (mount / "work" / str(number)).write_bytes(b"content")
        held = [os.open(mount / "work" / str(number), os.O_RDONLY) for number in range(100)]
        for name, number in (("replaced", signal.SIGUSR2), ("killed", signal.SIGKILL)):
            gaps_ms = sorted(_gap_ms(caretaker.pid, mount, number) for _ in range(ROUNDS))
            print(
                f"{name}: median {statistics.median(gaps_ms):.0f}, {gaps_ms[0]:.0f} to {gaps_ms[-1]:.0f} ms", flush=True
            )
        for file in held:
            os.close(file)
        caretaker.terminate()
        caretaker.wait()


def _gap_ms(caretaker: int, mount: Path, number: signal.Signals) -> float:
    owner = int(Path(f"/proc/{caretaker}/task/{caretaker}/children").read_text().split()[0])
    longest_s, over = [0.0], threading.Event()

    def ask() -> None:
        while not over.is_set():
            before = time.perf_counter()
            os.statvfs(mount)
            longest_s[0] = max(longest_s[0], time.perf_counter() - before)

    client = threading.Thread(target=ask)
    client.start()
    os.kill(owner, number)
    while str(owner) in Path(f"/proc/{caretaker}/task/{caretaker}/children").read_text().split():
        time.sleep(0.001)
    os.statvfs(mount)
    over.set()
    client.join()
    return longest_s[0] * 1e3


if __name__ == "__main__":
    main()
