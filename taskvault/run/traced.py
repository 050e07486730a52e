"""A run of which nothing is declared: found by what earlier runs of it looked at, replayed, or traced and stored."""

from __future__ import annotations

import os
import platform
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from taskvault.client import Client
from taskvault.errors import DaemonUnreachable, DaemonWedged
from taskvault.protocol.address import SOCKET_NAME
from taskvault.protocol.messages import Entry, GetEntry
from taskvault.run.as_text import text
from taskvault.run.declaration import Declaration
from taskvault.run.digests import Digests
from taskvault.run.execute import Captured, Executed, execute, first_trouble
from taskvault.run.inputs import InputsUnusable
from taskvault.run.outputs import Output, holds_path, stream_holds
from taskvault.run.pathset import Item, Pathset, PathsetsUnusable, decode, encode, strong_key, unpack
from taskvault.run.places import Places
from taskvault.run.preparation import MOST_DESCRIBED, read_stdin, stream_digest, umask_now
from taskvault.run.replay import read_result, replay
from taskvault.run.report import Outcome, Report
from taskvault.run.request import Mode, RunRequest
from taskvault.run.states import Sight
from taskvault.run.stdin import READ_IT, Stdin
from taskvault.run.storable import STORE_TIMEOUT_S, WRITE_TROUBLE, RunPlainly, RunUnstored
from taskvault.run.toolchain import Surroundings, find_program
from taskvault.run.turns import turn
from taskvault.run.weak_key import WeakKey, counting
from tvfs.digest import Digest
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import HashFunction, PluginRegistry

if TYPE_CHECKING:
    from tvfs.plugin_api import Tracer

TRACERS = ("native", "strace")
"""The first that can serve is taken."""

NESTED = "TASKVAULT_RUN"
"""Set for what runs inside a traced run: the outer one sees everything, and two tracers at once are not possible."""

_READ_BYTES = 1 << 20
_SHORTEST_SEARCHED = 4
"""Shorter values of variables are found everywhere by chance."""


@dataclass(slots=True)
class Prepared:
    """A run whose weak key is known, and what is known of its inputs so far."""

    weak: WeakKey
    weak_hash: bytes
    root: str
    umask: int
    stdin_file: object
    sight: Sight
    places: Places
    items: Sequence[Item] = ()
    states: Sequence[bytes] = ()

    @property
    def known_key(self) -> str:
        """Not before it is found or stored."""
        return ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that count."""
        return self.weak.environment

    def facts(self) -> dict[str, str]:
        """Everything in the key beside arguments, inputs and environment, for the history."""
        facts = {f"platform {name}": value for name, value in self.weak.platform.items()}
        facts["working directory"] = text(self.weak.workdir) or "."
        facts["program"] = text(self.weak.program)
        return facts

    def described_inputs(self) -> dict[str, str]:
        """What each input was, for the history."""
        import msgspec

        return {
            text(os.fsdecode(item.path)) or ".": _described(msgspec.msgpack.decode(state))
            for item, state in list(zip(self.items, self.states, strict=False))[:MOST_DESCRIBED]
        }


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pathset with what is found now where it says to look."""

    encoded: bytes
    pathset: Pathset
    states: list[bytes] = field(default_factory=list)


class TracedRun:
    """Carries out one run of which nothing is declared."""

    def __init__(
        self, home: Path, request: RunRequest, declaration: Declaration, report: Report, *, patience_s: float
    ) -> None:
        self._home = home
        self._request = request
        self._declaration = declaration
        self._root = declaration.place.root
        self._report = report
        self._patience_s = patience_s
        self.started = False
        """Whether the command was: then it must not be started again."""

    def carry_out(self, client: Client) -> int:
        """Return the exit status; raise `RunPlainly` or `RunUnstored` before the command was started."""
        if self._root == Path("/"):
            raise RunUnstored("its root is /; name the directory of the project with --root")
        hash_function = PluginRegistry().hash_function(client.welcome.hash)
        prepared = self._prepare(hash_function)
        self._report.prepared(prepared)
        with ExitStack() as stack:
            if self._request.mode is Mode.NORMAL:
                status = self._replayed(client, prepared, hash_function)
                if status is not None:
                    return status
            try:
                # One run of each kind at a time, wherever its root is: the others find its result.
                waited: list[int] = []
                names = [prepared.weak_hash.hex(), self._request.scope]
                stack.enter_context(turn(Path("/"), names, waiting=lambda pid: self._say_waiting(pid, waited)))
            except OSError as exc:
                raise RunUnstored(f"its turn cannot be taken ({exc.strerror})") from exc
            if waited and self._request.mode is Mode.NORMAL:
                status = self._replayed(client, prepared, hash_function)
                if status is not None:
                    return status
            client.close()
            return self._execute(prepared, hash_function)

    def _say_waiting(self, process: int, waited: list[int]) -> None:
        waited.append(process)
        self._report.say(f"waiting for process {process}, which runs the same")

    # --- before ------------------------------------------------------------------------------------------------------

    def _prepare(self, hash_function: HashFunction) -> Prepared:
        declaration, request = self._declaration, self._request
        surroundings = Surroundings(declaration.environment, request.workdir)
        program = find_program(request.command[0], surroundings)
        if program is None:
            raise RunPlainly(None)
        stdin = read_stdin() if request.with_stdin else None
        umask = umask_now()
        root = str(self._root)
        scratch_base = Path(os.path.realpath(tempfile.gettempdir()), f"taskvault-{os.getuid()}")
        home = request.environment.get("HOME", "")
        machine = platform.uname()
        named = os.path.realpath(program)
        weak = WeakKey(
            arguments=request.command,
            workdir=declaration.place.workdir,
            program=os.path.relpath(named, root) if named.startswith(f"{root}/") else str(program),
            environment=counting(declaration.environment),
            platform={
                "os": f"{machine.system} {machine.release}".lower(),
                "arch": machine.machine,
                "umask": f"{umask:03o}",
                "user": f"{os.getuid()}:{os.getgid()}:{','.join(map(str, sorted(os.getgroups())))}",
                "terminals": "none",
                "stdin": stream_digest(stdin, hash_function),
            },
        )
        weak_hash = weak.hash(hash_function)
        places = Places(
            root=root,
            scratch=str(scratch_base / weak_hash.hex()[:16]),
            home=os.path.realpath(home) if home else "",
            sockets=frozenset({str(self._home / SOCKET_NAME), os.path.realpath(self._home / SOCKET_NAME)}),
        )
        sight = Sight(os.fsencode(root), Digests(hash_function))
        return Prepared(weak, weak_hash, root, umask, stdin, sight, places)

    # --- found -------------------------------------------------------------------------------------------------------

    def _replayed(self, client: Client, prepared: Prepared, hash_function: HashFunction) -> int | None:
        """Return the exit status of a stored result, or None if the command must run."""
        import time

        prepared.sight = Sight(os.fsencode(prepared.root), Digests(hash_function))
        found = self._find(client, prepared, hash_function)
        if found is None:
            return None
        began_ns = time.monotonic_ns()
        try:
            result = read_result(found, client.welcome.hash)
            trouble = replay(client, result, self._root, umask=prepared.umask)
        except (TaskVaultError, OSError) as exc:
            self._report.say(f"running again: {exc}")
            return None
        took_ns = time.monotonic_ns() - began_ns
        self._report.hit(found, exit_code=result.exit_code, duration_ns=took_ns)
        return self._status(result.exit_code, trouble)

    def _find(self, client: Client, prepared: Prepared, hash_function: HashFunction) -> Entry | None:
        try:
            row = client.call(GetEntry(self._request.scope, prepared.weak_hash.hex()), timeout_s=self._patience_s).entry
            if row is None or row.kind != "paths":
                return None
            for encoded in unpack(row.result):
                entry = self._find_by(client, prepared, encoded, hash_function)
                if entry is not None:
                    return entry
        except PathsetsUnusable:
            return None
        except (DaemonUnreachable, DaemonWedged) as exc:
            raise RunPlainly(str(exc)) from exc
        except TaskVaultError as exc:
            raise RunUnstored(str(exc)) from exc
        return None

    def _find_by(self, client: Client, prepared: Prepared, encoded: bytes, hash_function: HashFunction) -> Entry | None:
        pathset = decode(encoded)
        try:
            states = prepared.sight.states(pathset)
        except (OSError, InputsUnusable):
            return None
        prepared.items, prepared.states = pathset.items, states
        for bound in ([], [os.fsencode(prepared.root)]):
            key = strong_key(prepared.weak_hash, encoded, [*states, *bound], hash_function)
            entry = client.call(
                GetEntry(self._request.scope, key.hex(), count_use=True), timeout_s=self._patience_s
            ).entry
            if entry is not None:
                return entry
        return None

    def _status(self, exit_code: int, trouble: OSError | None) -> int:
        """Return the exit status: that of the command, unless it is success and what it wrote was lost."""
        if trouble is None:
            return exit_code
        self._report.say(f"what the command wrote could not be passed on: {trouble.strerror}")
        return exit_code or WRITE_TROUBLE

    # --- run ---------------------------------------------------------------------------------------------------------

    def _execute(self, prepared: Prepared, hash_function: HashFunction) -> int:
        tracer = None if NESTED in self._request.environment else _tracer()
        if tracer is None:
            nested = "it runs inside another run, which sees all it does"
            raise RunUnstored(nested if NESTED in self._request.environment else "no tracer works here; see tv doctor")
        with _scratch(Path(prepared.places.scratch)) as scratch:
            environment = dict(self._declaration.environment)
            environment |= {"TMPDIR": scratch, NESTED: "1"}
            stdin = Stdin()
            self.started = True
            executed = execute(
                self._request.command,
                workdir=self._request.workdir,
                environment=environment,
                with_stdin=self._request.with_stdin or stdin.is_given,
                capture=True,
                tracer=tracer,
            )
            assert executed.captured is not None, "a traced run is captured"
            status = self._status(executed.exit_code, first_trouble(executed.captured.unwritten))
            if executed.exit_code:
                self._report.executed(executed, Outcome.FAILED, f"exit status {executed.exit_code}")
                return status
            if stdin.was_read() and not self._request.with_stdin:
                reason: str | None = READ_IT
            else:
                reason = self._why_not_stored(executed, prepared, hash_function, tracer)
        self._report.executed(executed, Outcome.NOT_STORED if reason else Outcome.STORED, reason or "")
        return status

    def _why_not_stored(
        self, executed: Executed, prepared: Prepared, hash_function: HashFunction, tracer: Tracer
    ) -> str | None:
        """Store the result; return why not, or None if it was."""
        # Imported here: a hit needs nothing of it.
        from taskvault.run.record import Finished, store
        from taskvault.run.settle import settle
        from taskvault.run.used import use_of

        assert executed.captured is not None, "a traced run is captured"
        assert executed.observation is not None, "a traced run is observed"
        if not self._request.store:
            return "storing was turned off"
        if executed.captured.incomplete:
            return executed.captured.incomplete
        try:
            used = use_of(executed.observation, prepared.places)
            prepared.sight = Sight(os.fsencode(prepared.root), Digests(hash_function))
            settled = settle(used, prepared.places, prepared.sight, executed.began_ns)
            encoded = encode(settled.pathset)
            prepared.items, prepared.states = settled.pathset.items, settled.states
            leaked = self._leaked(executed.captured, settled.outputs, prepared)
            if leaked:
                return f"what it made holds the value of the variable {leaked}, which does not count"
            bound = self._names_root(executed.captured, settled.outputs, prepared)
            states = [*settled.states, os.fsencode(prepared.root)] if bound else settled.states
            key = Digest(hash_function.name, strong_key(prepared.weak_hash, encoded, states, hash_function), 0)
            finished = Finished(
                self._request.scope,
                key,
                self._root,
                settled.outputs,
                executed,
                deleted=settled.deleted,
                modes=_unusual_modes(self._root, settled.outputs, prepared.umask),
                observed=tracer.name,
                weak_key=prepared.weak_hash.hex(),
                pathset=encoded,
            )
            with Client.connect(self._home, timeout_s=STORE_TIMEOUT_S) as client:
                store(client, finished, replace=self._request.mode is Mode.REFRESH)
        except (TaskVaultError, OSError) as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001  # the command has run: our own bugs must not change its exit status
            return f"something went wrong inside tv ({type(exc).__name__}: {exc})"
        self._report.key = key.hex
        return None

    def _leaked(self, captured: Captured, outputs: Sequence[Output], prepared: Prepared) -> str:
        """Return the name of a session variable whose value is in what was made; empty if there is none."""
        from taskvault.run.rules import is_session_variable

        for name, value in self._request.environment.items():
            wanted = os.fsencode(value)
            if len(wanted) < _SHORTEST_SEARCHED or not is_session_variable(name) or wanted.startswith(b"/"):
                continue
            if _streams_hold([wanted], captured):
                return name
        return ""

    def _names_root(self, captured: Captured, outputs: Sequence[Output], prepared: Prepared) -> bool:
        """Whether the result holds the absolute path of its root, and so is right only there."""
        logical = self._request.environment.get("PWD", "")
        below = self._declaration.place.workdir
        logical_root = logical.removesuffix(f"/{below}") if below else logical
        paths = {os.fsencode(path) for path in (prepared.root, logical, logical_root, prepared.places.scratch)}
        wanted = sorted(path for path in paths if len(path) > 1)
        return _streams_hold(wanted, captured) or holds_path(wanted, self._root, outputs)


def _streams_hold(wanted: Sequence[bytes], captured: Captured) -> bool:
    for stream in (captured.stdout, captured.stderr):
        stream.seek(0)
        if stream_holds(wanted, iter(lambda stream=stream: stream.read(_READ_BYTES), b"")):  # type: ignore[misc]
            return True
    return False


def _tracer() -> Tracer | None:
    registry = PluginRegistry()
    for name in TRACERS:
        with suppress(TaskVaultError):
            tracer = registry.tracer(name)
            if not tracer.trouble():
                return tracer
    return None


@contextmanager
def _scratch(wanted: Path) -> Iterator[str]:
    """Yield an empty directory of the run's own: the same for the same run, as long as nobody else has it."""
    import shutil

    wanted.parent.mkdir(mode=0o700, exist_ok=True)
    status = os.lstat(wanted.parent)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise RunUnstored(f"{wanted.parent} belongs to somebody else; remove it, or set TMPDIR")
    shutil.rmtree(wanted, ignore_errors=True)
    wanted.mkdir(mode=0o700)
    try:
        yield str(wanted)
    finally:
        shutil.rmtree(wanted, ignore_errors=True)


def _unusual_modes(root: Path, outputs: Sequence[Output], umask: int) -> dict[str, int]:
    modes: dict[str, int] = {}
    for output in outputs:
        place = root / output.path
        _add_mode(modes, output.path, os.lstat(place), umask)
        if output.is_directory:
            for directory, directories, files in os.walk(place):
                for name in (*directories, *files):
                    below = Path(directory, name)
                    _add_mode(modes, str(below.relative_to(root)), os.lstat(below), umask)
    return modes


def _add_mode(modes: dict[str, int], path: str, status: os.stat_result, umask: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        return
    mode = stat.S_IMODE(status.st_mode)
    executable = stat.S_ISDIR(status.st_mode) or mode & 0o111
    if mode != (0o777 if executable else 0o666) & ~umask:
        modes[path] = mode


def _described(parts: object) -> str:
    """Return a state for people."""
    if not isinstance(parts, list):
        return str(parts)
    return " ".join(_part(part) for part in parts)


def _part(part: object) -> str:
    if isinstance(part, bytes):
        return part.hex()[:16] if len(part) == 32 else os.fsdecode(part)
    if isinstance(part, list):
        return " ".join(_part(each) for each in part)
    return str(part)
