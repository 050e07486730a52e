"""The key of a declared run: the digest of a REAPI v2 `Action`.  Pure.

The same command on the same inputs with the same tools has the same key on any machine and in any checkout.  What is in
it, and why, is in docs/design/task-key.md; a change of meaning here is a new `KEY_FORMAT`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taskvault.run.as_text import text
from tvfs.content import reapi
from tvfs.digest import Digest
from tvfs.plugin_api import HashFunction

KEY_FORMAT = b"taskvault declared run 2"


@dataclass(frozen=True, slots=True)
class RunKey:
    """Everything that the key of one run is made from."""

    arguments: Sequence[str]
    workdir: str
    """Relative to the root."""
    outputs: Sequence[str]
    """Output patterns, sorted."""
    environment: Mapping[str, str]
    """Variables that count."""
    input_root: Digest
    """Canonical tree of the declared inputs."""
    toolchain: Mapping[str, str] = field(default_factory=dict)
    """Role to digest of each program: which one is `cc` counts, and not where it lies."""
    platform: Mapping[str, str] = field(default_factory=dict)
    """Properties of the machine and of the way the command is started."""

    def digest(self, hash_function: HashFunction) -> Digest:
        """Return the digest of the `Action`; its hash in hexadecimal is the key of the entry."""
        platform = _platform(self.platform)
        command = reapi.serialise(
            reapi.Command(
                arguments=[text(argument) for argument in self.arguments],
                environment_variables=[
                    {"name": text(n), "value": text(v)} for n, v in sorted(self.environment.items())
                ],
                platform=platform,
                working_directory=text(self.workdir),
                output_paths=[text(pattern) for pattern in self.outputs],
            )
        )
        action = reapi.Action(
            command_digest=_message_digest(hash_function, command),
            input_root_digest={"hash": self.input_root.hex, "size_bytes": self.input_root.size},
            salt=self._salt(hash_function),
            platform=platform,
        )
        encoded = reapi.serialise(action)
        return Digest(hash_function.name, hash_function.digest(encoded), len(encoded))

    def _salt(self, hash_function: HashFunction) -> bytes:
        programs = "\n".join(f"{text(role)}\0{digest}" for role, digest in sorted(self.toolchain.items()))
        return KEY_FORMAT + b"\0" + hash_function.digest(programs.encode())


def bound_to_root(key: RunKey, root: str) -> RunKey:
    """Return the key for a result that holds the absolute path of its root, and so is right only there."""
    return RunKey(
        key.arguments, key.workdir, key.outputs, key.environment, key.input_root, key.toolchain,
        {**key.platform, "root": root},
    )  # fmt: skip


def _platform(properties: Mapping[str, str]) -> reapi.ReapiMessage:
    ordered = sorted(properties.items())
    return reapi.Platform(properties=[{"name": text(name), "value": text(value)} for name, value in ordered])


def _message_digest(hash_function: HashFunction, encoded: bytes) -> reapi.ReapiMessage:
    return reapi.Digest(hash=hash_function.digest(encoded).hex(), size_bytes=len(encoded))
