"""stress-ng's filesystem stressors and fio's verified writes, on a mount; what fails there must fail beside it too.

`python -m tests.posix.load` with stress-ng and fio installed; `--seconds 3` for each stressor, `--way kernel`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.posix.places import WAYS, Mount, mounted, plain_directory

STRESS_TIMEOUT_S = 120
FIO_TIMEOUT_S = 600
OUTCOMES = {0: "passed", 2: "failed", 3: "had no resources", 4: "is not for this machine", 5: "was ended", 6: "crashed"}


def stressors() -> list[str]:
    """Name the stressors of the class."""
    said = subprocess.run(["stress-ng", "--class", "filesystem?"], capture_output=True, text=True, check=False)
    return (said.stdout + said.stderr).partition(":")[2].split()


def stress(name: str, place: Path, seconds: int) -> tuple[str, str]:
    """Run two workers of a stressor; return what came of it, and what it said."""
    command = ["stress-ng", f"--{name}", "2", "--verify", "--timeout", str(seconds), "--temp-path", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STRESS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "did not end", ""
    failures = [line for line in (done.stdout + done.stderr).splitlines() if "fail:" in line]
    return OUTCOMES.get(done.returncode, f"ended with {done.returncode}"), "\n".join(failures[:5])


def compare_stressors(way: str, seconds: int) -> int:
    """Print what only the mount fails; return how many that are."""
    worse = passed = 0
    with mounted(way) as mount, plain_directory() as plain:
        names = stressors()
        for name in names:
            here, said = stress(name, mount.work, seconds)
            passed += here == "passed"
            if here == "passed":
                continue
            beside, _ = stress(name, plain, seconds)
            print(f"  {name} {here} on the mount, {beside} beside it {said}", flush=True)
            worse += beside == "passed"
    print(f"{way}: {passed} of {len(names)} stressors passed, {worse} only beside the mount")
    return worse


def fio(place: Path, engine: str, *, verify: bool) -> None:
    """Write 128 MiB at random in pieces of any size, or check what an earlier run wrote.

    The files have their size from the beginning: where there is no fallocate, as over pyfuse3, fio would take those
    that ended up a little shorter for unfinished, and empty them before it checks them.
    """
    command = [
        "fio", "--name=verified", f"--directory={place}", "--size=64m", "--numjobs=2", "--rw=randwrite",
        "--bsrange=512-200k", "--bs_unaligned=1", f"--ioengine={engine}", "--verify=crc32c", "--verify_fatal=1",
        "--randseed=7", "--end_fsync=1", "--fallocate=truncate", "--verify_state_save=0",
        "--verify_only" if verify else "--do_verify=0",
    ]  # fmt: skip
    if engine == "mmap":
        command[command.index("--bsrange=512-200k")] = "--bs=4k"
        command.remove("--bs_unaligned=1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=FIO_TIMEOUT_S, check=False)
    if done.returncode or "verify: bad" in done.stderr:
        raise AssertionError(done.stdout[-2_000:] + done.stderr[-2_000:])


def verify_writes(mount: Mount, engine: str) -> None:
    """Check what was written at once, mounted anew, and sealed."""
    place = mount.work / engine
    place.mkdir()
    fio(place, engine, verify=False)
    fio(place, engine, verify=True)
    mount.again()
    fio(place, engine, verify=True)
    mount.rest()
    mount.again()
    fio(place, engine, verify=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, action="append", help="all, if none is named")
    arguments = parser.parse_args()
    worse = 0
    for way in arguments.way or WAYS:
        with mounted(way) as mount:
            for engine in ("psync", "mmap"):
                verify_writes(mount, engine)
        print(f"{way}: fio verify=crc32c (psync, mmap) clean, also mounted anew", flush=True)
        worse += compare_stressors(way, arguments.seconds)
    return bool(worse)


if __name__ == "__main__":
    sys.exit(main())
