"""A run that made 1 GiB in 10,000 files under the mount, replayed, beside what CI does: `tar --zstd` of the outputs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.filesystem.comparing import no_slower
from benchmarks.pairs import Outcome, alternate, run, seconds
from benchmarks.workplace import TV, await_rest, fresh, vault

FILES = 10_000
BYTES = 107_374
"""Of each; all are 1 GiB."""
_MADE = "made"
_MAKE = """import os, random, sys
count, size = int(sys.argv[1]), int(sys.argv[2])
text = b"a line of text that is easy to compress, as half of what programs write is; "
for number in range(count):
    place = f"made/{number // 100:03}"
    os.makedirs(place, exist_ok=True)
    half = random.Random(number).randbytes(size // 2)
    with open(f"{place}/{number:05}.bin", "wb") as file:
        file.write(half + (text * (size // len(text)))[: size - len(half)])
"""


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """The archive is unpacked on the disk below, warm; a replay attaches the tree.  Both start with nothing there."""
    unpacked, archive = fresh(cache / "long-output"), fresh(cache / "long-output.tar.zst")
    unpacked.mkdir()
    with vault(cache, "long-output-vault") as place:
        project = place.mount / "work" / "project"
        project.mkdir()
        (project / "make.py").write_text(_MAKE)
        environment = {**os.environ, "TASKVAULT_HOME": str(place.home)}
        command = (
            *TV,
            "run",
            "--quiet",
            "--root",
            ".",
            "--",
            "python3",
            "make.py",
            str(FILES),
            str(BYTES),
        )

        def replayed() -> float:
            shutil.rmtree(project / _MADE, ignore_errors=True)
            await_rest(place.home)
            return seconds(lambda: run(*command, cwd=str(project), env=environment))

        def extracted() -> float:
            shutil.rmtree(unpacked / _MADE, ignore_errors=True)
            return seconds(lambda: run("tar", "--zstd", "-C", str(unpacked), "-xf", str(archive)))

        run(*command, cwd=str(project), env=environment)
        run("tar", "--zstd", "-C", str(project), "-cf", str(archive), _MADE)
        series = alternate("replay of 1 GiB", pairs, replayed, extracted)
        run("diff", "-r", str(project / _MADE), str(unpacked / _MADE))
    fresh(unpacked)
    fresh(archive)
    case = f"replay of 1 GiB in {FILES:,} files to the mount, beside tar --zstd -x of them"
    return [no_slower(case, *series, floor=0.02, aim=0.005)]
