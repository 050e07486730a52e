"""What is known of a traced run before it starts: its weak key, its places, and how to look at what counts."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import msgspec

from taskvault.client import Client
from taskvault.protocol.address import SOCKET_NAME
from taskvault.protocol.messages import UnsteadyKey
from taskvault.run.as_text import text
from taskvault.run.caller import MOST_DESCRIBED, read_stdin, stream_digest, umask_now
from taskvault.run.declaration import Declaration
from taskvault.run.digests import Digests, Told
from taskvault.run.memory import Memory
from taskvault.run.pathset import Item
from taskvault.run.places import Places
from taskvault.run.project import ProjectRules
from taskvault.run.quick_sight import QuickSight
from taskvault.run.request import RunRequest
from taskvault.run.states import Sight
from taskvault.run.toolchain import ProgramMissing, Surroundings, find_program
from taskvault.run.weak_key import WeakKey, counting
from taskvault.run.whereabouts import Whereabouts
from tvfs.plugin_api import HashFunction

HIDDEN_DIRECTORY = ".taskvault"
"""At the top of a mount: where the owner prepares what clients then publish."""


@dataclass
class Prepared:
    """One run."""

    weak: WeakKey
    weak_hash: bytes
    root: Path
    """Absolute, symlinks resolved."""
    scratch: str
    """The run's own directory for temporary files."""
    find_places: Callable[[], Places]
    umask: int
    hash_function: HashFunction
    logical_roots: frozenset[str]
    """The root as the shell may name it, through symlinks."""
    items: Sequence[Item] = ()
    """What it looked at, as far as that is known yet."""
    states: Sequence[bytes] = ()
    unsteady: dict[str, UnsteadyKey] = field(default_factory=dict)
    """Keys that would have been its own, but did not make the same when they were audited."""
    own_view: bool = False
    """Whether a pathset that was looked at holds something that is another for each process."""
    caller: int | None = None
    """The process which that is asked of when the run is stored; None: ourselves."""
    bound: str = ""
    """Why the result holds only where it was made, once that is known; nothing if it holds anywhere."""

    @cached_property
    def places(self) -> Places:
        """Kinds of place, as they are when this is first asked: before it starts, and not for a hit, which has none."""
        return self.find_places()

    @property
    def whereabouts(self) -> Whereabouts:
        """Where it runs, as far as what it makes may tell."""
        return Whereabouts(str(self.root), self.logical_roots, self.scratch)

    @property
    def known_key(self) -> str:
        """Not before it is found or stored."""
        return ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that count."""
        return self.weak.environment

    def sight(self, digests: Digests) -> Sight:
        """Return a fresh look at the disk; `digests` may be what others have read already."""
        return Sight(os.fsencode(self.root), digests, self.caller)

    def quick_sight(self, memory: Memory, told: Told) -> QuickSight:
        """Return a fresh look at everything that a pathset names."""
        return QuickSight(os.fsencode(self.root), self.hash_function, memory, told)

    def facts(self) -> dict[str, str]:
        """Everything in the key beside arguments, inputs and environment, for the history."""
        facts = {f"platform {name}": value for name, value in self.weak.platform.items()}
        facts["working directory"] = text(self.weak.workdir) or "."
        facts["program first"] = text(self.weak.program)
        if self.bound:
            facts["bound"] = text(self.bound)
        return facts

    def described_inputs(self) -> dict[str, str]:
        """What each input was, for the history."""
        known = list(zip(self.items, self.states, strict=False))[:MOST_DESCRIBED]
        return {text(os.fsdecode(item.path)) or ".": described(state) for item, state in known}


def prepare_traced(
    client: Client, request: RunRequest, declaration: Declaration, hash_function: HashFunction
) -> Prepared:
    """Return what is known of a run; raise `ProgramMissing` or `OSError`."""
    surroundings = Surroundings(declaration.environment, request.workdir)
    program = find_program(request.command[0], surroundings)
    if program is None:
        raise ProgramMissing(request.command[0])
    stdin = read_stdin() if request.with_stdin else None
    umask = umask_now()
    root, workdir = str(declaration.place.root), declaration.place.workdir
    weak = WeakKey(
        arguments=request.command,
        workdir=workdir,
        program=_relative(os.path.realpath(program), root),
        environment=counting(declaration.environment, request.variables, declaration.rules),
        platform={**_machine(declaration.rules), "umask": f"{umask:03o}", "stdin": stream_digest(stdin, hash_function)},
    )
    weak_hash = weak.hash(hash_function)
    scratch = _scratch(weak_hash, request.scope, declaration.environment)
    logical_roots = _logical_roots(request.environment.get("PWD", ""), workdir)
    places = partial(_places, client, root, scratch, declaration)
    return Prepared(weak, weak_hash, declaration.place.root, scratch, places, umask, hash_function, logical_roots)


def _logical_roots(logical: str, workdir: str) -> frozenset[str]:
    if workdir.startswith("/"):
        # It is in the key as it is, and says nothing of the root.
        return frozenset()
    return frozenset({logical, logical.removesuffix(f"/{workdir}") if workdir else logical})


def _machine(project: ProjectRules) -> dict[str, str]:
    machine = platform.uname()
    groups = ",".join(map(str, sorted(os.getgroups())))
    said = {"project": project.text} if project.text else {}
    return {
        "os": f"{machine.system} {machine.release}".lower(),
        "arch": machine.machine,
        "user": "any" if project.any_user else f"{os.getuid()}:{os.getgid()}:{groups}",
        "terminals": "none",
        **said,
    }


def _scratch(weak_hash: bytes, scope: str, environment: Mapping[str, str]) -> str:
    # As turns are: two that run at once must not have the same.
    name = hashlib.sha256(weak_hash + os.fsencode(scope)).hexdigest()[:16]
    temporary = os.path.realpath(environment.get("TMPDIR") or "/tmp")  # noqa: S108  # what programs take themselves
    return os.path.join(temporary, f"taskvault-{os.getuid()}", name)


def _places(client: Client, root: str, scratch: str, declaration: Declaration) -> Places:
    environment, project = declaration.environment, declaration.rules
    user_home = environment.get("HOME", "")
    sockets = {str(client.home / SOCKET_NAME), os.path.realpath(client.home / SOCKET_NAME)}
    mount = client.welcome.mount
    return Places(
        root=root,
        scratch=scratch,
        home=os.path.realpath(user_home) if user_home else "",
        sockets=frozenset(sockets),
        channels=frozenset(_jobserver(environment.get("MAKEFLAGS", ""))),
        ignored=tuple(project.ignored_paths),
        caches=tuple(project.tool_caches),
        prepared=os.path.join(os.path.realpath(mount), HIDDEN_DIRECTORY) if mount is not None else "",
    )


def _jobserver(flags: str) -> list[str]:
    """Return the pipe by which make shares its jobs: new ones name it."""
    found = []
    for word in flags.split():
        name, _, value = word.partition("=")
        if name == "--jobserver-auth" and value.startswith("fifo:"):
            found.append(os.path.realpath(value.removeprefix("fifo:")))
    return found


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root) if path.startswith(f"{root}/") else path


def described(state: bytes) -> str:
    """Return a state for people."""
    return " ".join(_part(part) for part in msgspec.msgpack.decode(state))


def _part(part: object) -> str:
    if isinstance(part, bytes):
        return part.hex()[:16] if len(part) == 32 else text(os.fsdecode(part))
    if isinstance(part, list):
        return " ".join(_part(each) for each in part[:8])
    return "nothing" if part == "-" else str(part)
