"""`tvd`: the daemon of one vault, in the foreground.

Exit status: 0 stopped in order; 1 broke while serving (the log says how); 2 the command line or a setting is wrong;
3 the vault is in use by another daemon; 4 the vault cannot be opened or made; 5 it cannot be mounted;
6 stopped in order with the mount left to the next daemon, which is to be started now.
With `--fsck`: 0 nothing found; 1 findings, repaired or proposed; 3 the vault is in use; 5 it could not be repaired.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from pathlib import Path

import msgspec
import structlog
import trio

from tvd import config_file, logs
from tvd.assemble import assembled, make_vault, make_vault_if_missing
from tvd.config import Config, LogConfig
from tvd.control.peer import GroupUnknown
from tvd.readiness import ReadyPipe
from tvd.stack_dump import Dump
from tvfs.catalog.rocks import CatalogLocked
from tvfs.errors import TaskVaultError
from tvfs.fuse.mount_point import FuseUnavailable, MountPointBusy, MountPointInvalid, MountPointNotEmpty
from tvfs.vault.lock import VaultInUse

SWITCH_INTERVAL_S = 0.0005
"""How long a busy thread keeps the interpreter; with Python's 5 ms one such thread makes every stat wait 16 ms."""

OWN_FILE = ""
"""`--check-config` without a file: the vault's own."""

_M_ARENA_MAX = -8
_ARENAS = 2
"""Of malloc: with more, threads that come and go keep tens of MiB each."""


class ExitCode(IntEnum):
    """What the exit status says; see the top of this file."""

    OK = 0
    BROKE = 1
    USAGE = 2
    VAULT_IN_USE = 3
    VAULT_UNUSABLE = 4
    NOT_MOUNTED = 5
    HANDED_OVER = 6


_EXIT_CODES: dict[type[BaseException], ExitCode] = {
    config_file.ConfigInvalid: ExitCode.USAGE,
    GroupUnknown: ExitCode.USAGE,
    VaultInUse: ExitCode.VAULT_IN_USE,
    CatalogLocked: ExitCode.VAULT_IN_USE,
    FuseUnavailable: ExitCode.NOT_MOUNTED,
    MountPointBusy: ExitCode.NOT_MOUNTED,
    MountPointInvalid: ExitCode.NOT_MOUNTED,
    MountPointNotEmpty: ExitCode.NOT_MOUNTED,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon, or make a vault with `--init`; return the exit status."""
    options = make_parser().parse_args(arguments)
    ready = ReadyPipe(options.ready_fd)
    try:
        if options.fsck:
            home = (options.home or config_file.default_home(os.environ)).absolute()
            from tvd import offline_check  # what it imports takes a tenth of a start

            return offline_check.run(home, dry=options.dry_run, content=options.content)
        if options.print_config or options.check_config is not None:
            print(_told(options))
            return ExitCode.OK
        config = _configuration(options)
        if options.init:
            make_vault(config)
            if options.eviction is not None:
                config_file.keep_policy(config.home, options.eviction)
            return ExitCode.OK
        return _serve(config, ready, to_stderr=options.foreground)
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - the program's outermost line: it becomes a sentence
        if "LISTEN_FDS" in os.environ and not structlog.is_configured():
            # Started to go on with a mount: nobody reads what it says on stderr.
            with suppress(TaskVaultError):
                home = options.home or config_file.default_home(os.environ)
                logs.configure(logs.open_log(home, LogConfig(), to_stderr=False), LogConfig().level)
        return _report(exc, ready)


def _serve(config: Config, ready: ReadyPipe, *, to_stderr: bool) -> int:
    _tune_process()
    make_vault_if_missing(config)
    target = logs.open_log(config.home, config.log, to_stderr=to_stderr)
    logs.configure(target, config.log.level)
    dump = logs.enable_stack_dumps(target.fileno())
    return trio.run(_run, config, ready, target, dump)


async def _run(config: Config, ready: ReadyPipe, target: logs.LogTarget, dump: Dump) -> int:
    async with assembled(config) as owner:
        dump.requests = owner.requests
        if isinstance(target, logs.RotatingFile):
            target.limit(owner.log_max_bytes)
        await owner.run(ready)
        broke, handed_over = owner.mount_failed, owner.handed_over
    structlog.get_logger().info("stopped", handed_over=handed_over)
    if handed_over:
        return ExitCode.HANDED_OVER
    return ExitCode.BROKE if broke else ExitCode.OK


def _report(error: BaseException, ready: ReadyPipe) -> int:
    found = _first(error)
    match found:
        case TaskVaultError():
            code = next(
                (code for kind, code in _EXIT_CODES.items() if isinstance(found, kind)), ExitCode.VAULT_UNUSABLE
            )
            sentence = str(found)
        case OSError():
            code = ExitCode.VAULT_UNUSABLE
            sentence = f"{found.strerror or found}{f': {found.filename}' if found.filename else ''}."
        case KeyboardInterrupt():
            code, sentence = ExitCode.BROKE, "Interrupted before the vault was open."
        case _:
            code = ExitCode.BROKE
            sentence = f"The daemon broke ({type(found).__name__}: {found}); its log has the details."
            structlog.get_logger().critical("broke", exc_info=error)
    sentence = " ".join(sentence.split())
    with suppress(Exception):  # the log may be what is wrong
        structlog.get_logger().error("stopped", reason=sentence, exit_code=int(code))
    with suppress(OSError, ValueError):
        print(f"tvd: {sentence}", file=sys.stderr, flush=True)
    ready.fail(sentence, code)
    return code


def _first(error: BaseException) -> BaseException:
    """Return the error inside the groups that nurseries make; one that we raise on purpose rather than another."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_first(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, TaskVaultError)), leaves[0])


def _told(options: argparse.Namespace) -> str:
    """Return what `--print-config` or `--check-config` prints; raise `ConfigInvalid`."""
    from tvd import config_report

    own = (options.home or config_file.default_home(os.environ)).absolute() / config_file.FILE_NAME
    if options.print_config:
        return json.dumps(msgspec.to_builtins(config_report.settings(own, os.environ)))
    # A file that is named may be meant for another machine: this one's variables say nothing about it.
    named = options.check_config != OWN_FILE
    file = Path(options.check_config).absolute() if named else own
    errors = config_report.errors(file, {} if named else os.environ)
    return json.dumps({"file": str(file), "exists": os.path.lexists(file), "errors": msgspec.to_builtins(errors)})


def _configuration(options: argparse.Namespace) -> Config:
    home = options.home or config_file.default_home(os.environ)
    config = config_file.load(home, os.environ)
    if options.no_mount:
        config = replace(config, mount=replace(config.mount, enabled=False))
    if options.mount is not None:
        config = replace(config, mount=replace(config.mount, enabled=True, path=options.mount.absolute()))
    if options.allow_other:
        config = replace(config, mount=replace(config.mount, allow_other=True))
    chosen = {name: getattr(options, name) for name in ("size", "hash", "compression", "chunking", "eviction")}
    return config_file.with_choices(config, {name: value for name, value in chosen.items() if value is not None})


def make_parser() -> argparse.ArgumentParser:
    """Return what reads the command line; the manual page is made from it too."""
    parser = argparse.ArgumentParser(prog="tvd", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--home", type=Path, metavar="DIR", help="the vault; default $TASKVAULT_HOME, else ~/.taskvault"
    )
    mount = parser.add_mutually_exclusive_group()
    mount.add_argument("--mount", type=Path, metavar="DIR", help="where to mount; default HOME/mnt")
    mount.add_argument("--no-mount", action="store_true", help="serve without a mount, where there is no /dev/fuse")
    parser.add_argument("--allow-other", action="store_true", help="let other users into the mount")
    parser.add_argument(
        "--caretaker", action="store_true",
        help="run the daemon below a process that keeps its mount while it is replaced, and after it was killed",
    )  # fmt: skip
    parser.add_argument("--foreground", action="store_true", help="log to stderr instead of HOME/tvd.log")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="descriptor to write one JSON line to when ready")
    telling = parser.add_mutually_exclusive_group()
    telling.add_argument("--print-config", action="store_true", help="print every setting and who says so, as JSON")
    telling.add_argument(
        "--check-config", nargs="?", const=OWN_FILE, metavar="FILE",
        help="print everything that is wrong with FILE, or with HOME/config.toml and the environment, as JSON",
    )  # fmt: skip
    checking = parser.add_argument_group("checking a vault that is stopped")
    checking.add_argument("--fsck", action="store_true", help="check it, put it right, print findings as JSON")
    checking.add_argument("--dry-run", action="store_true", help="change nothing")
    checking.add_argument("--content", action="store_true", help="read all content and verify its hashes")
    making = parser.add_argument_group("making a vault")
    making.add_argument("--init", action="store_true", help="make the vault and stop")
    making.add_argument("--size", metavar="SIZE", help="the most it may take of the disk, e.g. 50G")
    making.add_argument("--hash", metavar="NAME", help="hash plugin")
    making.add_argument("--compression", metavar="NAME", help="compression plugin")
    making.add_argument("--chunking", metavar="NAME", help="chunking plugin")
    making.add_argument("--eviction", metavar="NAME", help="eviction plugin; with --init it is kept in config.toml")
    return parser


def _tune_process() -> None:
    os.umask(0o077)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with suppress(AttributeError, OSError):  # a C library without it
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
