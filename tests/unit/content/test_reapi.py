"""The messages have the published wire form: compared with an independent implementation, and with golden bytes."""

from __future__ import annotations

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as independent
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from tvfs.content import reapi

NEWER_FIELDS = {"OutputDirectory": {"is_topologically_sorted", "root_directory_digest"}}
"""Published after the release that the independent implementation was made from; they have golden bytes below."""
NEWER_FIELDS["ExecutedActionMetadata"] = {"virtual_execution_duration"}
ANY_TYPES = {"google.protobuf.Any"}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = {
    "string": text,
    "bytes": st.binary(max_size=20),
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "google.protobuf.Timestamp": st.builds(
        lambda s, n: ("time", s, n), st.integers(0, 2**33), st.integers(0, 10**9 - 1)
    ),
    "google.protobuf.Duration": st.builds(
        lambda s, n: ("time", s, n), st.integers(0, 2**33), st.integers(0, 10**9 - 1)
    ),
    "google.protobuf.Any": st.builds(lambda t, v: ("any", t, v), text, st.binary(max_size=9)),
    "google.protobuf.UInt32Value": st.builds(lambda v: ("wrapped", v), st.integers(0, 2**32 - 1)),
}


def values_of(name: str, depth: int = 0) -> st.SearchStrategy[dict[str, object]]:
    """Values for some of the fields of a message, by field name."""
    fields: dict[str, st.SearchStrategy[object]] = {}
    for spec in reapi.MESSAGES[name]:
        if spec.name in NEWER_FIELDS.get(name, ()):
            continue
        type_ = spec.type.rstrip("*")
        value = scalars[type_] if type_ in scalars else values_of(type_, depth + 1)
        fields[spec.name] = st.lists(value, max_size=3) if spec.type.endswith("*") else value
    return st.fixed_dictionaries({}, optional=fields)


def fill(message: object, values: dict[str, object]) -> object:
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            put(message, name, one, repeated=isinstance(value, list))
    return message


def put(message: object, name: str, value: object, *, repeated: bool) -> None:
    held = getattr(message, name)
    if not isinstance(value, dict | tuple):
        if repeated:
            held.append(value)
        else:
            setattr(message, name, value)
        return
    inner = held.add() if repeated else held
    if not repeated:
        inner.SetInParent()
    if isinstance(value, dict):
        fill(inner, value)
    elif value[0] == "time":
        inner.seconds, inner.nanos = value[1], value[2]
    elif value[0] == "any":
        inner.type_url, inner.value = value[1], value[2]
    else:
        inner.value = value[1]


def independent_class(name: str) -> type:
    found: object = independent
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", reapi.MESSAGES)
@given(data=st.data())
def test_every_message_has_the_same_bytes_as_an_independent_implementation(name: str, data: st.DataObject) -> None:
    values = data.draw(values_of(name))
    ours = fill(reapi.message_class(name)(), values)
    theirs = fill(independent_class(name)(), values)

    encoded = reapi.serialise(ours)  # type: ignore[arg-type]

    assert encoded == theirs.SerializeToString(deterministic=True)  # type: ignore[attr-defined]
    assert reapi.message_class(name).FromString(encoded) == ours
    assert MessageToDict(reapi.Action()) == {}


@pytest.mark.parametrize("name", reapi.MESSAGES)
def test_every_message_has_all_fields_of_the_independent_one(name: str) -> None:
    theirs = {field.name: field.number for field in independent_class(name).DESCRIPTOR.fields}  # type: ignore[attr-defined]
    ours = {spec.name: spec.number for spec in reapi.MESSAGES[name] if spec.name not in NEWER_FIELDS.get(name, ())}
    assert ours == theirs


def test_the_newer_fields_of_an_output_directory_have_their_published_numbers() -> None:
    digest = reapi.Digest(hash="ab", size_bytes=1)
    message = reapi.OutputDirectory(path="p", is_topologically_sorted=True, root_directory_digest=digest)
    assert reapi.serialise(message) == bytes.fromhex("0a017020012a060a0261621001")


def test_the_newer_field_of_the_execution_metadata_has_its_published_number() -> None:
    message = reapi.ExecutedActionMetadata(virtual_execution_duration=reapi.Duration(seconds=5))
    assert reapi.serialise(message) == bytes.fromhex("62020805")


def test_messages_can_be_written_as_json_under_their_published_names() -> None:
    action = ParseDict({"doNotCache": True, "commandDigest": {"hash": "ab", "sizeBytes": "3"}}, reapi.Action())
    assert action.do_not_cache
    assert action.command_digest.size_bytes == 3
