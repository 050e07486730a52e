"""The messages of the Remote Execution API v2 that a vault stores, made from their documented names and numbers.

`build.bazel.remote.execution.v2`, as documented at https://github.com/bazelbuild/remote-apis.  The table below becomes
a `FileDescriptorProto` in a pool of its own, so that a program which also loads another copy of the API does not clash.
The tests compare every message, byte for byte, with an independent implementation.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.message import Message

PACKAGE = "build.bazel.remote.execution.v2"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
}
_IMPORTED = (timestamp_pb2, duration_pb2, any_pb2, wrappers_pb2)


class FieldSpec(NamedTuple):
    """One field of a message: `*` after the type means repeated; `google.` types are imported, others are ours."""

    number: int
    name: str
    type: str


def _fields(text: str) -> tuple[FieldSpec, ...]:
    specs = (line.split() for line in text.strip().splitlines())
    return tuple(FieldSpec(int(number), name, type_) for number, name, type_ in specs)


MESSAGES: dict[str, tuple[FieldSpec, ...]] = {
    "Digest": _fields("""
        1 hash string
        2 size_bytes int64"""),
    "NodeProperty": _fields("""
        1 name string
        2 value string"""),
    "NodeProperties": _fields("""
        1 properties NodeProperty*
        2 mtime google.protobuf.Timestamp
        3 unix_mode google.protobuf.UInt32Value"""),
    "FileNode": _fields("""
        1 name string
        2 digest Digest
        4 is_executable bool
        6 node_properties NodeProperties"""),
    "DirectoryNode": _fields("""
        1 name string
        2 digest Digest"""),
    "SymlinkNode": _fields("""
        1 name string
        2 target string
        4 node_properties NodeProperties"""),
    "Directory": _fields("""
        1 files FileNode*
        2 directories DirectoryNode*
        3 symlinks SymlinkNode*
        5 node_properties NodeProperties"""),
    "Tree": _fields("""
        1 root Directory
        2 children Directory*"""),
    "Platform.Property": _fields("""
        1 name string
        2 value string"""),
    "Platform": _fields("""
        1 properties Platform.Property*"""),
    "Command.EnvironmentVariable": _fields("""
        1 name string
        2 value string"""),
    "Command": _fields("""
        1 arguments string*
        2 environment_variables Command.EnvironmentVariable*
        3 output_files string*
        4 output_directories string*
        5 platform Platform
        6 working_directory string
        7 output_paths string*
        8 output_node_properties string*"""),
    "Action": _fields("""
        1 command_digest Digest
        2 input_root_digest Digest
        6 timeout google.protobuf.Duration
        7 do_not_cache bool
        9 salt bytes
        10 platform Platform"""),
    "OutputFile": _fields("""
        1 path string
        2 digest Digest
        4 is_executable bool
        5 contents bytes
        7 node_properties NodeProperties"""),
    "OutputDirectory": _fields("""
        1 path string
        3 tree_digest Digest
        4 is_topologically_sorted bool
        5 root_directory_digest Digest"""),
    "OutputSymlink": _fields("""
        1 path string
        2 target string
        4 node_properties NodeProperties"""),
    "ExecutedActionMetadata": _fields("""
        1 worker string
        2 queued_timestamp google.protobuf.Timestamp
        3 worker_start_timestamp google.protobuf.Timestamp
        4 worker_completed_timestamp google.protobuf.Timestamp
        5 input_fetch_start_timestamp google.protobuf.Timestamp
        6 input_fetch_completed_timestamp google.protobuf.Timestamp
        7 execution_start_timestamp google.protobuf.Timestamp
        8 execution_completed_timestamp google.protobuf.Timestamp
        9 output_upload_start_timestamp google.protobuf.Timestamp
        10 output_upload_completed_timestamp google.protobuf.Timestamp
        11 auxiliary_metadata google.protobuf.Any*
        12 virtual_execution_duration google.protobuf.Duration"""),
    "ActionResult": _fields("""
        2 output_files OutputFile*
        3 output_directories OutputDirectory*
        4 exit_code int32
        5 stdout_raw bytes
        6 stdout_digest Digest
        7 stderr_raw bytes
        8 stderr_digest Digest
        9 execution_metadata ExecutedActionMetadata
        10 output_file_symlinks OutputSymlink*
        11 output_directory_symlinks OutputSymlink*
        12 output_symlinks OutputSymlink*"""),
}
"""Every message by name, a nested one as `Outer.Inner`.  Numbers are the published ones and never change."""


def serialise(message: Message) -> bytes:
    """Return the bytes that are stored and hashed: the same for equal messages, fields in number order."""
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="taskvault/reapi.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=[module.DESCRIPTOR.name for module in _IMPORTED],
    )
    described: dict[str, descriptor_pb2.DescriptorProto] = {}
    for full_name, fields in MESSAGES.items():
        outer, _, inner = full_name.rpartition(".")
        holder = _outer(file, described, outer).nested_type if outer else file.message_type
        message = described.get(full_name)
        if message is None:
            message = described[full_name] = holder.add(name=inner)
        for spec in fields:
            message.field.append(_describe_field(spec))
    return file


def _outer(
    file: descriptor_pb2.FileDescriptorProto, described: dict[str, descriptor_pb2.DescriptorProto], name: str
) -> descriptor_pb2.DescriptorProto:
    # The table lists an inner message before its outer one, so the outer is begun here.
    if name not in described:
        described[name] = file.message_type.add(name=name)
    return described[name]


def _describe_field(spec: FieldSpec) -> descriptor_pb2.FieldDescriptorProto:
    type_ = spec.type.rstrip("*")
    field = _Field(name=spec.name, number=spec.number)
    field.label = _Field.LABEL_REPEATED if spec.type.endswith("*") else _Field.LABEL_OPTIONAL
    if type_ in _SCALARS:
        field.type = _SCALARS[type_]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{type_}" if type_.startswith("google.") else f".{PACKAGE}.{type_}"
    return field


def _load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for module in _IMPORTED:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_describe().SerializeToString())
    return pool


_pool = _load()

ReapiMessage: TypeAlias = Any
"""Message classes are made at run time; their fields are known to the table above, not to the type checker."""


def message_class(full_name: str) -> ReapiMessage:
    """Return the class of a message of the table, or of a `google.protobuf` type that the table refers to."""
    qualified = full_name if full_name.startswith("google.") else f"{PACKAGE}.{full_name}"
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(qualified))


Digest: ReapiMessage = message_class("Digest")
NodeProperty: ReapiMessage = message_class("NodeProperty")
NodeProperties: ReapiMessage = message_class("NodeProperties")
FileNode: ReapiMessage = message_class("FileNode")
DirectoryNode: ReapiMessage = message_class("DirectoryNode")
SymlinkNode: ReapiMessage = message_class("SymlinkNode")
Directory: ReapiMessage = message_class("Directory")
Tree: ReapiMessage = message_class("Tree")
Platform: ReapiMessage = message_class("Platform")
Command: ReapiMessage = message_class("Command")
Action: ReapiMessage = message_class("Action")
OutputFile: ReapiMessage = message_class("OutputFile")
OutputDirectory: ReapiMessage = message_class("OutputDirectory")
OutputSymlink: ReapiMessage = message_class("OutputSymlink")
ExecutedActionMetadata: ReapiMessage = message_class("ExecutedActionMetadata")
ActionResult: ReapiMessage = message_class("ActionResult")
Timestamp: ReapiMessage = message_class("google.protobuf.Timestamp")
Duration: ReapiMessage = message_class("google.protobuf.Duration")
