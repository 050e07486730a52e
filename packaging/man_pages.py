"""Write the manual pages, man/man1/tv.1, man/man1/tv-*.1 and man/man8/tvd.8, from the command line itself.

Run by `make man`.  They are committed, because the wheel carries them and is built without running our code;
tests/packaging/test_generated.py fails when one is not what would be written now.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

from command_pages import Page, main_page, pages
from generated import bring_up_to_date
from source_notes import field_notes

from taskvault.cli.application import COMMANDS
from taskvault.cli.exit_codes import ExitCode
from tvd.main import ExitCode as DaemonExitCode
from tvd.main import make_parser

ROOT = Path(__file__).parent.parent
VARIABLES = {
    "TASKVAULT_HOME": "The vault; ~/.taskvault if it is not set.",
    "TASKVAULT": "With the value off, `tv run` runs the command as if there were no vault.",
    "TASKVAULT_PATIENCE_S": "How long `tv run` waits for the daemon to greet, in seconds.",
    "TASKVAULT_AUDIT": "`tv run` has a run audited in the background after one in so many hits; 0: never.",
    "TASKVAULT_SECTION_KEY": "A setting of the daemon, such as TASKVAULT_LOG_LEVEL; see `tv config show`.",
}
FILES = {
    "~/.taskvault/config.toml": "Settings of the daemon; `tv config check` says what is wrong with it.",
    "~/.taskvault/tvd.log": "Log of the daemon, one JSON object a line.",
    "~/.taskvault/mnt": "The mount, unless another place was named.",
}


def main() -> int:
    """Write the pages, or with --check say which are not up to date."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    check = "--check" in sys.argv[1:]
    commands = {"tv.1": _tv(version)} | {f"{page.name}.1": _command(page, version) for page in pages()}
    status = bring_up_to_date(ROOT / "man" / "man1", commands, "make man", check=check)
    return status | bring_up_to_date(ROOT / "man" / "man8", {"tvd.8": _tvd(version)}, "make man", check=check)


def _command(page: Page, version: str) -> str:
    parts = [_heading(page.name, 1, page.summary, version), _synopsis(page.usage), _description(page.paragraphs)]
    parts += [_section("OPTIONS", _tagged(page.options))]
    if page.example:
        parts.append(_section("EXAMPLE", _verbatim(page.example)))
    if page.exit_status:
        parts.append(_section("EXIT STATUS", [_text(page.exit_status)]))
    parts.append(_section("SEE ALSO", [_text("tv(1), tvd(8)")]))
    return "".join(parts)


def _tv(version: str) -> str:
    page = main_page()
    listed = [(f"tv-{name}(1)", place.summary) for name, place in COMMANDS.items()]
    statuses = field_notes(ExitCode)
    return "".join(
        [
            _heading("tv", 1, page.summary, version),
            _synopsis(page.usage),
            _description([*page.paragraphs, "taskvault is another name of tv."]),
            _section("OPTIONS", _tagged(page.options)),
            _section("COMMANDS", _tagged(listed)),
            _section("EXAMPLE", _verbatim(page.example)),
            _section("EXIT STATUS", _tagged([(str(int(c)), statuses.get(c.name, "done")) for c in ExitCode])),
            _section("ENVIRONMENT", _tagged(list(VARIABLES.items()))),
            _section("FILES", _tagged(list(FILES.items()))),
            _section("SEE ALSO", [_text("tvd(8)")]),
        ]
    )


def _tvd(version: str) -> str:
    parser = make_parser()
    options = [(_names(action), action.help or "") for action in parser._actions]
    statuses = [
        (DaemonExitCode.OK, "stopped in order"),
        (DaemonExitCode.BROKE, "broke while serving; the log says how"),
        (DaemonExitCode.USAGE, "the command line or a setting is wrong"),
        (DaemonExitCode.VAULT_IN_USE, "the vault is in use by another daemon"),
        (DaemonExitCode.VAULT_UNUSABLE, "the vault cannot be opened or made"),
        (DaemonExitCode.NOT_MOUNTED, "it cannot be mounted"),
    ]
    signals = [
        ("SIGTERM, SIGINT, SIGHUP", "Flush, unmount and stop; a second one stops at once."),
        ("SIGUSR1", "Write the stacks of all threads to the log."),
    ]
    return "".join(
        [
            _heading("tvd", 8, "the daemon of one vault", version),
            _synopsis("tvd [OPTIONS]"),
            _description(
                ["Owns a vault, mounts it and serves it in the foreground. `tv up` starts it in the background; "
                 "under systemd it says when it is ready and feeds the watchdog."]
            ),
            _section("OPTIONS", _tagged(options)),
            _section("SIGNALS", _tagged(signals)),
            _section("EXIT STATUS", _tagged([(str(int(code)), text) for code, text in statuses])),
            _section("FILES", _tagged(list(FILES.items()))),
            _section("SEE ALSO", [_text("tv(1), tv-up(1), tv-config-show(1)")]),
        ]
    )  # fmt: skip


def _names(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    return f"{names} {action.metavar}" if action.metavar else names


def _heading(name: str, section: int, summary: str, version: str) -> str:
    title = f'.TH {name.upper()} {section} "" "TaskVault {version}" "TaskVault"'
    return f'.\\" Made by `make man`; do not edit.\n{title}\n.SH NAME\n{_text(name)} \\- {_text(summary)}\n'


def _synopsis(usage: str) -> str:
    # Hyphenation off: a name that is cut cannot be typed.
    return f".nh\n.ad l\n.SH SYNOPSIS\n.B {_text(usage)}\n"


def _description(paragraphs: list[str]) -> str:
    body = "\n.PP\n".join(_text(paragraph.replace("\b", "").strip()) for paragraph in paragraphs)
    return f".SH DESCRIPTION\n{body}\n"


def _section(title: str, lines: list[str]) -> str:
    return f".SH {title}\n" + "\n".join(lines) + "\n"


def _tagged(pairs: list[tuple[str, str]]) -> list[str]:
    return [f".TP\n.B {_text(name)}\n{_text(meaning)}" for name, meaning in pairs]


def _verbatim(lines: list[str]) -> list[str]:
    return [".nf", ".RS", *map(_text, lines), ".RE", ".fi"]


def _text(text: str) -> str:
    """Escape what roff would take for its own; words in backquotes are bold."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    plain = plain.replace("…", "...").replace("→", "->")
    plain = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", plain)
    return f"\\&{plain}" if plain[:1] in (".", "'") else plain


if __name__ == "__main__":
    sys.exit(main())
