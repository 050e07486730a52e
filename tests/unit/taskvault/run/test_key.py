from __future__ import annotations

from dataclasses import replace

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as independent
from hypothesis import given
from hypothesis import strategies as st

from taskvault.run.key import RunKey, bound_to_root
from tvfs.digest import Digest
from tvfs.plugin_api import PluginRegistry

HASH = PluginRegistry().hash_function("blake3")
EMPTY = Digest("blake3", HASH.digest(b""), 0)
GOLDEN = "55872796563fabd1799350b24c00ac3ba26142ce5c06420cbd75b5ba17b2e1cf"
BASE = RunKey(["make", "all"], "sub", ["build"], {"CC": "gcc"}, EMPTY, {"make": "d1"}, {"os": "linux"})


def key(run_key: RunKey) -> str:
    return run_key.digest(HASH).hex


def test_everything_that_counts_is_in_the_key() -> None:
    variants = [
        BASE,
        replace(BASE, arguments=["make", "all", ""]),
        replace(BASE, arguments=["makeall"]),
        replace(BASE, workdir=""),
        replace(BASE, outputs=["build", "lib"]),
        replace(BASE, environment={"CC": "clang"}),
        replace(BASE, environment={}),
        replace(BASE, input_root=Digest("blake3", HASH.digest(b"x"), 1)),
        replace(BASE, toolchain={"make": "d2"}),
        replace(BASE, toolchain={"cc": "d1"}),
        replace(BASE, toolchain={"cc": "d1", "clang": "d2"}),
        replace(BASE, toolchain={"cc": "d2", "clang": "d1"}),
        replace(BASE, toolchain={}),
        replace(BASE, platform={"os": "linux", "umask": "022"}),
        bound_to_root(BASE, "/home/me/project"),
        bound_to_root(BASE, "/home/you/project"),
    ]
    assert len({key(variant) for variant in variants}) == len(variants)


@given(st.dictionaries(st.text(alphabet="ABC", min_size=1), st.text(alphabet="xy"), max_size=4))
def test_the_order_of_variables_does_not_count(environment: dict[str, str]) -> None:
    backwards = dict(reversed(environment.items()))
    assert key(replace(BASE, environment=environment)) == key(replace(BASE, environment=backwards))


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_arguments_that_are_not_utf_8_are_kept_apart(one: bytes, other: bytes) -> None:
    a, b = (replace(BASE, arguments=["x", text.decode("utf-8", "surrogateescape")]) for text in (one, other))
    assert (key(a) == key(b)) == (one == other)


def test_the_key_of_a_known_run_never_changes() -> None:
    # Stored results are found by it: a change here is a new KEY_FORMAT.
    assert key(BASE) == GOLDEN


def test_an_independent_implementation_makes_the_same_key() -> None:
    platform = independent.Platform(properties=[{"name": "os", "value": "linux"}])
    command = independent.Command(
        arguments=["make", "all"],
        environment_variables=[{"name": "CC", "value": "gcc"}],
        platform=platform,
        working_directory="sub",
        output_paths=["build"],
    ).SerializeToString(deterministic=True)
    action = independent.Action(
        command_digest={"hash": HASH.digest(command).hex(), "size_bytes": len(command)},
        input_root_digest={"hash": EMPTY.hex, "size_bytes": 0},
        salt=b"taskvault declared run 2\0" + HASH.digest(b"make\0d1"),
        platform=platform,
    ).SerializeToString(deterministic=True)
    assert HASH.digest(action).hex() == key(BASE)
