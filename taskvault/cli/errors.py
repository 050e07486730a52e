"""Every error as one sentence on stderr and an exit status; never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import click

from taskvault.cli.exit_codes import MISSING_KINDS, REFUSING_ERRORS, TROUBLE_KINDS, ExitCode
from tvfs.errors import TaskVaultError


class Refusal(TaskVaultError):
    """`tv` itself will not do it; the message says why and what to do."""


class NoSuch(TaskVaultError):
    """The answer is no; the message says to what."""


class HostTrouble(TaskVaultError):
    """The machine, or a program that `tv` started, does not do its part."""


class Terminated(BaseException):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def report(error: BaseException) -> int:
    """Say on stderr what went wrong and return the exit status."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return ExitCode.INTERRUPTED
    if isinstance(error, Terminated):
        return 128 + error.number
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return ExitCode.PIPE_CLOSED
    if isinstance(error, OSError):
        _forget_stdout()
    if isinstance(error, click.UsageError):
        return _report_usage(error)
    say(_sentence(error))
    return exit_code_of(error)


def say(sentence: str) -> None:
    """Write one line to stderr, after `tv:`."""
    with suppress(OSError, ValueError):  # a closed stderr must not change what happened
        print(f"tv: {' '.join(sentence.split())}", file=sys.stderr, flush=True)


def exit_code_of(error: BaseException) -> int:
    """Return the exit status that stands for an error."""
    from taskvault.errors import DaemonUnreachable, DaemonWedged, Refused

    match error:
        case NoSuch():
            return ExitCode.NO
        case Refusal():
            return ExitCode.REFUSED
        case TaskVaultError() if type(error).__name__ in REFUSING_ERRORS:
            return ExitCode.REFUSED
        case DaemonUnreachable() | DaemonWedged():
            return ExitCode.UNREACHABLE
        case Refused() if error.kind in MISSING_KINDS:
            return ExitCode.NO
        case Refused() if error.kind not in TROUBLE_KINDS:
            return ExitCode.REFUSED
        case click.ClickException():
            return ExitCode.USAGE
    return ExitCode.TROUBLE


def _sentence(error: BaseException) -> str:
    match error:
        case TaskVaultError():
            return str(error)
        case click.ClickException():
            return error.format_message()
        case FileNotFoundError() if error.filename is None:
            return "The working directory is not there any more; change to one that is."
        case OSError() if error.strerror:
            places = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
            return f"{' → '.join(places) + ': ' if places else ''}{error.strerror}."
        case MemoryError():
            return "There is not enough memory."
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"Something went wrong inside tv ({type(error).__name__}: {error}{where}); please report this line."


def _report_usage(error: click.UsageError) -> int:
    command = error.ctx.command_path if error.ctx else "tv"
    say(f"{error.format_message().rstrip('.')}; see `{command} --help`.")
    return ExitCode.USAGE


def _forget_stdout() -> None:
    # What is still buffered would fail again when the interpreter exits.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
