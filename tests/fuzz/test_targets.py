"""The same parsers as `make fuzz`, a little in every test run: what was found before, and a few hundred new inputs."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import MOST_BYTES, MOST_MIB, MOST_SECONDS, TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


def run(target: Target, raw: bytes) -> None:
    # What this process took at most so far, for other tests too: only what is added counts.
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    target.run(raw)
    assert time.perf_counter() - started < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < MOST_MIB << 10


@pytest.mark.parametrize("path", FOUND, ids=[f"{path.parent.name}-{path.name}" for path in FOUND])
def test_what_a_fuzzer_found_once_is_taken_or_refused(path: Path) -> None:
    run(TARGETS[path.parent.name], path.read_bytes())


def test_every_finding_is_of_a_target() -> None:
    assert {path.parent.name for path in FOUND} <= TARGETS.keys()


@each_target
def test_valid_inputs_are_taken_and_cut_ones_refused(target: Target) -> None:
    for seed in target.seeds():
        run(target, seed)
        for length in range(0, len(seed), max(1, len(seed) // 40)):
            run(target, seed[:length])


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A valid input with a few bytes replaced, taken out, doubled or put in."""
    raw = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(raw)))
        match draw(st.integers(0, 3)):
            case 0:
                raw[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                raw[at : at + draw(st.integers(1, 9))] = b""
            case 2:
                raw[at:at] = raw[at : at + draw(st.integers(1, 64))]
            case _:
                raw[at:at] = draw(st.sampled_from([b"\0", b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"..", b"/", b"\xdd\xff\xff\xff\xff"]))  # noqa: E501  # fmt: skip
    return bytes(raw[:MOST_BYTES])


@each_target
def test_damaged_inputs_and_any_bytes_are_taken_or_refused(target: Target) -> None:
    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.one_of(damaged(target.seeds()), st.binary(max_size=400)))
    def check(raw: bytes) -> None:
        run(target, raw)

    check()
