"""What is configured and by whom, and everything that is wrong at once: `tvd --print-config`, `--check-config`.

The daemon itself stops at the first error (`tvd.config_file`); who corrects a file wants all of them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from tvd.config_file import (
    SECTIONS,
    ConfigInvalid,
    checked,
    load,
    not_a_section,
    parsed,
    read_text,
    unknown_section,
    variables_of,
)

MOST_LINES = 5000
"""Of a longer file it is not said where things are: finding out reads it once for each line."""
MOST_ERRORS = 100

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

Value = bool | int | float | str | dict[str, int | str] | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, what it is, and who says so."""

    section: str
    key: str
    value: Value
    default: Value
    source: str
    """`default`, `file` or `environment`."""
    file: str | None = None
    line: int | None = None
    variable: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One thing that is wrong."""

    source: str
    """The file, or the variable."""
    line: int | None
    key: str
    message: str
    """A sentence."""


def settings(path: Path, environment: Mapping[str, str]) -> list[Setting]:
    """Return every setting of the vault whose file is `path`; raise `ConfigInvalid` where the daemon would."""
    config = load(path.parent, environment)
    text = read_text(path)
    table, lines = tomllib.loads(text), _lines_of(text)
    variables = {(section, key): variable for variable, section, key, _ in variables_of(environment)}
    found = []
    for section, kind in SECTIONS.items():
        defaults, actual = kind(), getattr(config, section)
        for field in fields(kind):
            name = (section, field.name)
            value, default = _plain(getattr(actual, field.name)), _plain(getattr(defaults, field.name))
            if name in variables:
                said = Setting(*name, value, default, "environment", variable=variables[name])
            elif field.name in table.get(section, {}):
                said = Setting(*name, value, default, "file", str(path), lines.get(name))
            else:
                said = Setting(*name, value, default, "default")
            found.append(said)
    return found


def errors(path: Path, environment: Mapping[str, str]) -> list[ConfigError]:
    """Return everything that is wrong with a file, by line, and then with the variables that name a setting."""
    try:
        some = islice(_of_file(path, read_text(path)), MOST_ERRORS)
        found = sorted(some, key=lambda error: error.line or 0)
    except ConfigInvalid as exc:
        found = [ConfigError(exc.source, None, exc.key, str(exc))]
    for variable, section, key, text in variables_of(environment):
        source = f"environment variable {variable}"
        try:
            checked(section, key, parsed(section, key, text), source)
        except ConfigInvalid as exc:
            found.append(ConfigError(source, None, exc.key, str(exc)))
    return found[:MOST_ERRORS]


def _of_file(path: Path, text: str) -> Iterator[ConfigError]:
    lines = text.splitlines()
    while True:
        try:
            table = tomllib.loads("\n".join(lines))
            break
        except tomllib.TOMLDecodeError as exc:
            reason, number = _place(exc, len(lines))
            if not lines[number - 1].strip():  # it was taken out already, and that did not help
                return
            source = f"{path}:{number}"
            error = ConfigInvalid(source, "this line", f"is not TOML: {reason}; correct it")
            yield ConfigError(str(path), number, "", str(error))
            _take_out(lines, number)
        except (ValueError, RecursionError) as exc:
            error = ConfigInvalid(str(path), "the file", f"cannot be read: {exc}; write it simpler")
            yield ConfigError(str(path), None, "", str(error))
            return
    where = _lines_of("\n".join(lines))
    for section, values in table.items():
        for key in values if section in SECTIONS and isinstance(values, dict) else [None]:
            line = where.get((section, key)) or where.get((section, None))
            source = f"{path}:{line}" if line else str(path)
            try:
                _check(section, key, values, source)
            except ConfigInvalid as exc:
                yield ConfigError(str(path), line, exc.key, str(exc))


def _check(section: str, key: str | None, values: Any, source: str) -> None:
    if section not in SECTIONS:
        raise unknown_section(section, source)
    if key is None:
        if not isinstance(values, dict):
            raise not_a_section(section, source)
        return
    checked(section, key, values[key], source)


def _place(exc: tomllib.TOMLDecodeError, last: int) -> tuple[str, int]:
    """Return what is wrong and on which line."""
    found = _PLACE.search(str(exc))
    number = int(found[1]) if found and found[1] else last
    reason = _PLACE.sub("", str(exc))
    return reason[:1].lower() + reason[1:], max(1, min(number, last))


def _take_out(lines: list[str], number: int) -> None:
    """Empty a line; with a heading that cannot be read goes what is below it, which belongs to nobody knows what."""
    heading = lines[number - 1].lstrip().startswith("[")
    lines[number - 1] = ""
    while heading and number < len(lines) and not lines[number].lstrip().startswith("["):
        lines[number] = ""
        number += 1


def _lines_of(text: str) -> dict[tuple[str, str | None], int]:
    """Return the line of each section and key: the first line of the statement after which it is there.

    By parsing what is above each line: the parser tells no places, and this one is right whatever the notation.
    """
    lines = text.splitlines()
    found: dict[tuple[str, str | None], int] = {}
    begun = 1
    for number in range(1, min(len(lines), MOST_LINES) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:number]))
        except (ValueError, RecursionError):  # TOMLDecodeError is one
            continue  # a statement of several lines goes on
        for section, values in table.items():
            found.setdefault((section, None), begun)
            for key in values if isinstance(values, dict) else ():
                found.setdefault((section, key), begun)
        begun = number + 1
    return found


def _plain(value: object) -> Any:
    return str(value) if isinstance(value, Path) else value
