"""What rustc's listing of cargo's directory of crates is worth."""

from __future__ import annotations

import pytest

from taskvault.run.crates import others_alike, searched_by_digest, stem_of
from taskvault.run.places import Places
from taskvault.run.used import Seen, Used, use_of
from tvfs.plugin_api import Event, Observation, Process, Use

DEPS = "/p/target/debug/deps"
CARGOS = ("rustc", "--crate-name", "a", "-L", f"dependency={DEPS}", "-L", "native=/p/out")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (CARGOS, {DEPS}),
        (("rustc", f"-Ldependency={DEPS}/"), {DEPS}),
        ((*CARGOS, "-L", DEPS), set()),
        ((*CARGOS, f"-Lall={DEPS}"), set()),
        ((*CARGOS, f"-Lcrate={DEPS}"), set()),
        ((*CARGOS, "-L", "/elsewhere"), {DEPS}),
        ((*CARGOS, "-L", "deps"), set()),
        ((*CARGOS, "@more"), set()),
        (("rustc", "-L", "dependency=deps"), set()),
        (("rustc", "-L"), set()),
        (None, set()),
    ],
)
def test_only_directories_that_are_searched_by_digest_alone_are_found(
    arguments: tuple[str, ...] | None, found: set[str]
) -> None:
    assert searched_by_digest(arguments) == found


def test_what_begins_like_a_crate_and_is_not_its_own_counts() -> None:
    stem = stem_of(f"{DEPS}/libserde-0123456789abcdef.rmeta")
    assert stem == f"{DEPS}/libserde-0123456789abcdef"
    own = [b"libserde-0123456789abcdef" + ending for ending in (b".rmeta", b".rlib", b".so", b".d")]
    others = [b"libserde-fedcba9876543210.rlib", b"libserde_json-0123456789abcdef.rlib", b"a.o"]
    planted = [b"libserde-0123456789abcdef.x.rlib", b"libserde-0123456789abcdef0.rlib"]
    assert others_alike(stem.encode(), [*own, *others]) == []
    assert others_alike(stem.encode(), [*own, *others, *planted]) == planted
    assert [stem_of(f"{DEPS}/{name}") for name in ("libserde.rlib", "serde-0123456789abcdef.d", "x")] == ["", "", ""]


def seen(*programs: tuple[str, tuple[str, ...] | None]) -> Used:
    names, arguments = zip(*programs, strict=True)
    process = Process(1, 0, 0, 1, names, 0, arguments)
    return use_of(Observation((Event(Use.LISTED, DEPS, 1),), (process,), ()), Places("/p", "/tmp/s", ""))


def test_only_a_process_that_was_never_anything_but_rustc_may_list_it_for_nothing() -> None:
    assert seen(("/usr/bin/rustc", CARGOS)).searched == {DEPS}
    assert seen(("/rustup/rustc", CARGOS), ("/usr/bin/rustc", CARGOS)).seen == {DEPS: Seen.STATUS}
    for programs in (
        [("/usr/bin/rustc", None)],
        [("/usr/bin/ls", CARGOS)],
        [("/bin/sh", ("sh",)), ("/usr/bin/rustc", CARGOS)],
        [("/usr/bin/rustc", CARGOS), ("/usr/bin/rustc", ("rustc", "-L", DEPS))],
    ):
        assert seen(*programs).seen == {DEPS: Seen.NAMES}
