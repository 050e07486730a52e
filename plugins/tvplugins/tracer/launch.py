"""Finding the program of a command, before a tracer stands between it and whoever asked."""

from __future__ import annotations

import errno
import os

from tvfs.plugin_api.tracer import SpawnedProcess, TracedCommand

TRY_S = 10.0
"""How long a tracer may take to say what it can do."""
LINGER_S = 1.0
"""How long after its command's end the record may still grow; a process that then runs was left behind."""


class StartedProcess:
    """A command that was started under a tracer; it is the child of whoever started it, whatever traces it."""

    def __init__(self, process: SpawnedProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The command's own."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return what `wait` would, or None."""
        return self._process.poll()

    def wait(self) -> int:
        """Return the exit status when the command has ended."""
        return self._process.wait()


def find_program(command: TracedCommand) -> str:
    """Return the path of the program, as `execvp` would find it; raise `OSError` as `subprocess.Popen` does."""
    if not os.path.isdir(command.directory):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command.directory)
    name = command.arguments[0]
    if "/" in name:
        candidates = [name]
    else:
        folders = command.environment.get("PATH", os.defpath).split(os.pathsep)
        candidates = [os.path.join(folder or ".", name) for folder in folders]
    trouble = errno.ENOENT
    for candidate in candidates:
        path = os.path.join(command.directory, candidate)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return candidate
        if name and os.path.exists(path):
            trouble = errno.EACCES
    raise OSError(trouble, os.strerror(trouble), name)
