"""Fuzz one target until its time is over: `python -m tests.fuzz.one_target NAME CORPUS FINDINGS SECONDS [DIR...]`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

# Before anything of ours is imported: what is instrumented is counted.
with atheris.instrument_imports(include=["tvfs", "tvd", "taskvault", "tvplugins"]):
    from tests.fuzz.targets import MOST_BYTES, MOST_MIB, MOST_SECONDS, TARGETS


def main() -> None:
    name, corpus, findings, seconds, *more = sys.argv[1:]
    target = TARGETS[name]
    for seed in target.seeds():
        (Path(corpus) / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MOST_BYTES}",
        f"-timeout={round(MOST_SECONDS)}",
        f"-rss_limit_mb={MOST_MIB}",
        f"-artifact_prefix={findings}/{name}-",
        "-print_final_stats=1",
        "-seed=1",
    ]
    atheris.Setup([sys.argv[0], *options, corpus, *more], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
