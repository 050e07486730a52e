"""Everything that is known of a run before it starts: where, on what, with what, and so under which key."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import IO

from taskvault.run.as_text import text
from taskvault.run.caller import MOST_DESCRIBED, read_stdin, stream_digest, umask_now
from taskvault.run.declaration import Declaration
from taskvault.run.input_tree import described, digest_file, followed_digest, hash_inputs, input_root
from taskvault.run.inputs import FoundInputs, find_inputs
from taskvault.run.key import RunKey, bound_to_root
from taskvault.run.request import RunRequest
from taskvault.run.toolchain import Surroundings, Toolchain, toolchain_of
from tvfs.digest import Digest
from tvfs.plugin_api import HashFunction


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run whose key is known."""

    declaration: Declaration
    found: FoundInputs
    run_key: RunKey
    key: Digest
    bound_key: Digest
    """The key of a result that is right only in this root."""
    umask: int
    toolchain: Toolchain
    stdin: IO[bytes] | None
    """What the command reads, whole; None for nothing."""

    @property
    def known_key(self) -> str:
        """The key, in hexadecimal."""
        return self.key.hex

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that count."""
        return self.run_key.environment

    def facts(self) -> dict[str, str]:
        """Everything in the key beside arguments, inputs and environment, for the history."""
        facts = {f"program {text(role)}": digest for role, digest in self.run_key.toolchain.items()}
        facts |= {f"platform {name}": value for name, value in self.run_key.platform.items()}
        facts["working directory"] = text(self.run_key.workdir) or "."
        facts["inputs"] = " ".join(map(text, self.declaration.inputs.texts))
        facts["outputs"] = " ".join(map(text, self.run_key.outputs))
        return facts

    def described_inputs(self) -> dict[str, str]:
        """What each input was, for the history."""
        inputs = described(self.found)
        return inputs if len(inputs) <= MOST_DESCRIBED else _by_directory(inputs)


def prepare(request: RunRequest, declaration: Declaration, hash_function: HashFunction, executor: Executor) -> Prepared:
    """Read what counts and return the key; raise `InputsUnusable`, `ProgramMissing` or `OSError`."""
    root = declaration.place.root
    surroundings = Surroundings(declaration.environment, request.workdir)
    toolchain = toolchain_of(
        request.command, surroundings, digest_of=lambda path: digest_file(path, hash_function), executor=executor
    )
    found = find_inputs(root, declaration.inputs, declaration.outputs)
    found = hash_inputs(found, root, hash_function, executor)
    stdin = read_stdin() if request.with_stdin else None
    umask = umask_now()
    run_key = RunKey(
        arguments=request.command,
        workdir=declaration.place.workdir,
        outputs=declaration.outputs.texts,
        environment=declaration.counting,
        input_root=input_root(found, hash_function),
        toolchain=toolchain.digests,
        platform=_platform(umask, followed_digest(found, hash_function), stream_digest(stdin, hash_function)),
    )
    bound = bound_to_root(run_key, str(root))
    return Prepared(
        declaration, found, run_key, run_key.digest(hash_function), bound.digest(hash_function), umask, toolchain, stdin
    )  # fmt: skip


def _platform(umask: int, followed: str, stdin: str) -> dict[str, str]:
    machine = platform.uname()
    properties = {
        "os": machine.system.lower(),
        "arch": machine.machine,
        "libc": " ".join(platform.libc_ver()),
        "umask": f"{umask:03o}",
        # What the command sees: its streams are pipes, and stdin is a file or nothing, wherever we run.
        "terminals": "none",
        "stdin": stdin,
        "followed": followed,
    }
    return {name: value for name, value in properties.items() if value}


def _by_directory(inputs: Mapping[str, str]) -> dict[str, str]:
    from tvfs.plugin_api import PluginRegistry

    grouped: dict[str, list[str]] = {}
    for path, what in inputs.items():
        grouped.setdefault(path.rpartition("/")[0], []).append(f"{path}\0{what}")
    digest = PluginRegistry().hash_function("blake3").digest
    return {
        f"{directory or '.'}/ ({len(lines)} inputs)": digest("\n".join(sorted(lines)).encode()).hex()
        for directory, lines in sorted(grouped.items())[:MOST_DESCRIBED]
    }
