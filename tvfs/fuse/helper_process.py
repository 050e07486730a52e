"""Short processes that do what the owner must not: touch its own mount.

A system call on the mount waits for the owner's answer; made by the owner it would wait for ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

_KILL_TIMEOUT_S = 1.0
_SYSTEM_PATH = (
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/wrappers/bin:/run/current-system/sw/bin"
)
"""Where helpers are looked for.  Not the user's PATH: that may lead into the mount (an environment of Python's that was
made there), and `subprocess` holds the interpreter from `vfork` until the program is found: nobody would ever answer.
"""


@dataclass(frozen=True, slots=True)
class HelperResult:
    """How a helper ended."""

    status: int | None
    """Exit status; None if it did not end in time and was killed."""
    message: str
    """What it wrote to stderr, in English."""


async def run_helper(
    command: Sequence[str],
    *,
    timeout_s: float,
    pass_fds: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
) -> HelperResult:
    """Run a command, with these descriptors and variables more; one that cannot be run counts as exit status 127.

    A helper that hangs is killed and not waited for: in the kernel it may be stuck until the mount is gone.
    """
    environment = {**os.environ, "LC_ALL": "C", "PATH": _SYSTEM_PATH, **(variables or {})}
    pipe = subprocess.PIPE
    try:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=pipe,
            env=environment,
            pass_fds=pass_fds,
        )
    except (FileNotFoundError, PermissionError) as exc:
        return HelperResult(127, str(exc))
    stderr = process.stderr
    assert stderr is not None
    message = b""
    try:
        with trio.move_on_after(timeout_s):
            async for part in stderr:
                message = (message + part)[-4096:]
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(_KILL_TIMEOUT_S, shield=True):
                await process.wait()
        await stderr.aclose()
    if process.returncode in (None, -signal.SIGKILL):
        return HelperResult(None, f"`{' '.join(command)}` did not end within {timeout_s:g} s")
    return HelperResult(process.returncode, message.decode(errors="replace").strip())
