"""fsck killed at random moments, again and again: it is never worse for it, and in the end all is repaired."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from tests.unit.fsck.damages import DAMAGES
from tests.unit.fsck.sample_vault import Facts, check, copy, lines, make, read_everything

ROOT = Path(__file__).parent.parent.parent
PLANTED = (
    "torn tail", "pack header damaged", "record header flipped", "inner tree gone",
    "Directory object damaged", "entry unreadable", "usage rows gone", "view gone", "directory's name gone",
    "link count wrong", "count of entries wrong", "range gone", "stray staging file", "reference count wrong",
)  # fmt: skip
MOST_KILLS = 4


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts]:
    """A vault with many kinds of damage, and what could be read before."""
    base = tmp_path_factory.mktemp("damaged")
    trio.run(make, base / "home")
    facts = trio.run(read_everything, copy(base / "home", base / "copy"))
    for name in PLANTED:
        next(damage for damage in DAMAGES if damage.name == name).plant(base / "home")
    return base / "home", facts


def started(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tvd", "--home", str(home), "--fsck", "--content"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
    )  # fmt: skip


@pytest.mark.damages_vault("it is damaged all over")
@pytest.mark.parametrize("catalog_too", [False, True], ids=["rows", "rows and catalog"])
@pytest.mark.parametrize("attempt", [0, *(pytest.param(more, marks=pytest.mark.slow) for more in (1, 2))])
def test_a_killed_fsck_completes_when_it_is_run_again(
    damaged: tuple[Path, Facts], tmp_path: Path, seed: int, attempt: int, catalog_too: bool
) -> None:
    template, facts = damaged
    home = copy(template, tmp_path / "home")
    if catalog_too:
        (home / "meta" / "CURRENT").unlink()
    dice = random.Random(f"{seed} {attempt} {catalog_too}")
    whole_s = seconds_of_a_run(copy(home, tmp_path / "timed"))
    kills = 0
    for attempts in range(2 * MOST_KILLS):
        if attempts >= MOST_KILLS and kills:
            break
        process = started(home)
        try:
            # Shorter and shorter, should the run that was timed have been a slow one.
            process.wait(dice.uniform(0.2, 1.1) * whole_s * 0.8 ** max(0, attempts - MOST_KILLS))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills, "no run was killed"
    final = started(home)
    out, err = final.communicate(timeout=60)
    assert final.returncode in (0, 1), err.decode()
    assert "count" in json.loads(out.decode().splitlines()[-1])
    assert lines(check(home, content=True)) == []
    after = trio.run(read_everything, home)
    lost = [
        place for place, content in facts.items()
        if after.get(place) != content and not place.startswith(("work/plain/sub", "entry pr/7/", "keys/pr%2F7/other"))
    ]  # fmt: skip
    assert not lost, (lost[:9], f"seed {seed}")


def seconds_of_a_run(home: Path) -> float:
    began_s = time.perf_counter()
    started(home).communicate()
    return time.perf_counter() - began_s


def test_fsck_refuses_a_vault_that_a_daemon_has_and_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    trio.run(make, home)
    import fcntl

    with (home / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = started(home)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert b"is in use by" in err
    assert b"Nothing was changed" in err
    assert out == b""
