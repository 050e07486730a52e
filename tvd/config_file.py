"""Reads `HOME/config.toml` and the environment; the only module of the daemon that does.

Later wins: the defaults in `tvd.config`, the file, variables like `TASKVAULT_LOG_LEVEL=debug`, the command line.  A key
that does not exist, a value of the wrong type and one that cannot work are refused with one sentence.
"""

from __future__ import annotations

import json
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import Field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tvd.config import (
    Config,
    ControlConfig,
    EvictionConfig,
    LogConfig,
    MemoryConfig,
    MountConfig,
    PluginsConfig,
    ReclaimConfig,
    ServiceConfig,
    SupervisionConfig,
    VaultConfig,
)
from tvfs import failpoints
from tvfs.errors import TaskVaultError

FILE_NAME = "config.toml"
ENVIRONMENT_PREFIX = "TASKVAULT_"

SECTIONS: dict[str, type] = {
    "vault": VaultConfig,
    "eviction": EvictionConfig,
    "reclaim": ReclaimConfig,
    "memory": MemoryConfig,
    "mount": MountConfig,
    "control": ControlConfig,
    "log": LogConfig,
    "supervision": SupervisionConfig,
    "plugins": PluginsConfig,
}
"""Sections of the file; `service` is not among them, because the service manager speaks through its own variables."""

_CHOSEN = {"size": ("vault", "capacity_bytes"), "eviction": ("eviction", "policy")}
"""Section and key of options that are not called as the setting."""

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_FIRST_PASSED = 3
"""Number of the first descriptor that systemd's protocol passes."""
_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class ConfigInvalid(TaskVaultError):
    """A setting cannot be used."""

    def __init__(self, source: str, key: str, reason: str) -> None:
        super().__init__(f"{source}: {key} {reason}".removesuffix("?") + ("?" if reason.endswith("?") else "."))
        self.source = source
        self.key = key


def load(home: Path, environment: Mapping[str, str]) -> Config:
    """Return the configuration of the vault at `home`; raise `ConfigInvalid`.

    Also arms the failpoints named in `TASKVAULT_FAILPOINTS`, which only tests set.
    """
    home = home.absolute()
    path = home / FILE_NAME
    config = _with_table(Config(home=home), _read(path), str(path))
    config = _with_environment(config, environment)
    _arm_failpoints(environment.get("TASKVAULT_FAILPOINTS", ""))
    return replace(config, service=_service(environment))


def with_choices(config: Config, choices: Mapping[str, str]) -> Config:
    """Return the configuration with what the command line says of a vault to be made; raise `ConfigInvalid`."""
    for option, text in choices.items():
        section, key = _CHOSEN.get(option, ("vault", option))
        config = _changed(config, section, {key: checked(section, key, text, f"--{option}")})
    return config


def keep_policy(home: Path, policy: str) -> None:
    """Write into the vault's file which eviction policy it uses; raise `ConfigInvalid` if the file says another."""
    path = home / FILE_NAME
    section = _read(path).get("eviction")
    if section is None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{'' if file.tell() == 0 else chr(10)}[eviction]\npolicy = {json.dumps(policy)}\n")
    elif section.get("policy", EvictionConfig().policy) != policy:
        raise ConfigInvalid(str(path), "[eviction]", f"is there already; set policy = {json.dumps(policy)} in it")


def default_home(environment: Mapping[str, str]) -> Path:
    """Return where the vault is when nobody says: `TASKVAULT_HOME`, else `~/.taskvault`."""
    named = environment.get("TASKVAULT_HOME")
    return Path(named).expanduser() if named else Path("~/.taskvault").expanduser()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigInvalid(str(path), "the file", f"is not TOML: {exc}; correct that line") from exc
    except (ValueError, RecursionError) as exc:  # numbers of thousands of digits, lists in lists in lists
        raise ConfigInvalid(str(path), "the file", f"cannot be read: {exc}; write it simpler") from exc


def read_text(path: Path) -> str:
    """Return what the file says, nothing if there is none; raise `ConfigInvalid` for one that cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as exc:
        raise ConfigInvalid(str(path), "the file", "is not UTF-8 text; write it again with an editor") from exc
    except OSError as exc:
        raise ConfigInvalid(str(path), "the file", f"cannot be read: {exc.strerror}; check its permissions") from exc


def _with_table(config: Config, table: Mapping[str, Any], source: str) -> Config:
    for section, values in table.items():
        if section not in SECTIONS:
            raise unknown_section(section, source)
        if not isinstance(values, dict):
            raise not_a_section(section, source)
        changes = {key: checked(section, key, value, source) for key, value in values.items()}
        config = _changed(config, section, changes)
    return config


def _with_environment(config: Config, environment: Mapping[str, str]) -> Config:
    for variable, section, key, text in variables_of(environment):
        value = checked(section, key, parsed(section, key, text), f"environment variable {variable}")
        config = _changed(config, section, {key: value})
    return config


def variables_of(environment: Mapping[str, str]) -> typing.Iterator[tuple[str, str, str, str]]:
    """Yield `(variable, section, key, text)` for each variable that names one of our sections, in their order."""
    for variable, text in sorted(environment.items()):
        # Other variables that begin with TASKVAULT_ belong to the client; only those that name a section are ours.
        section, underscore, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        if variable.startswith(ENVIRONMENT_PREFIX) and underscore and section in SECTIONS:
            yield variable, section, key, text


def _changed(config: Config, section: str, changes: Mapping[str, Any]) -> Config:
    return replace(config, **{section: replace(getattr(config, section), **changes)})


def parsed(section: str, key: str, text: str) -> object:
    """Return what the text of a variable would be in the file, or the text where that is no better."""
    kind = types_of(section).get(key)
    if kind is bool:
        return _TRUTH.get(text.lower(), text)
    try:
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
    except ValueError:
        return text
    return text


def checked(section: str, key: str, value: object, source: str) -> Any:
    """Return a value that the field takes; raise `ConfigInvalid`."""
    name = f"{section}.{key}"
    declared: dict[str, Field[Any]] = {field.name: field for field in fields(SECTIONS[section])}
    if key not in declared:
        raise ConfigInvalid(
            source, name, f"is no setting; [{section}] has {_listed(declared)}{_nearest(key, declared)}"
        )
    typed = _typed(types_of(section)[key], name, value, source)
    metadata = declared[key].metadata
    if "least" in metadata and not metadata["least"] <= typed <= metadata["most"]:
        raise ConfigInvalid(source, name, f"is {value}; allowed is {metadata['least']} to {metadata['most']}")
    if "allowed" in metadata and typed not in metadata["allowed"]:
        raise ConfigInvalid(source, name, f"is {value!r}; allowed is {_listed(metadata['allowed'])}")
    return typed


def _typed(kind: object, name: str, value: object, source: str) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    if kind is int and name.endswith("_bytes") and isinstance(value, str):
        value = _size(name, value, source)
    match kind, value:
        case (_, bool()) if kind is bool:
            return value
        case (_, int()) if kind is int and not isinstance(value, bool):
            return value
        case (_, int() | float()) if kind is float and not isinstance(value, bool):
            return float(value)
        case (_, str()) if kind is str and value:
            return value
        case (_, str()) if kind is Path and value:
            return _absolute(name, value, source)
        case (_, dict()) if typing.get_origin(kind) is dict and {type(item) for item in value.values()} <= {int, str}:
            return value
    raise ConfigInvalid(source, name, f"is {value!r}; it must be {_described(kind, name)}")


def _absolute(name: str, value: str, source: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ConfigInvalid(source, name, f"is {value!r}; it must be an absolute path")
    return path


def _size(name: str, text: str, source: str) -> int:
    number, unit = text.strip().upper().removesuffix("IB").removesuffix("B"), ""
    if number and number[-1] in _SIZE_UNITS:
        number, unit = number[:-1], number[-1]
    try:
        return int(float(number) * _SIZE_UNITS[unit])
    except (ValueError, OverflowError):
        raise ConfigInvalid(source, name, f"is {text!r}; write a number of bytes, or a size like 50G") from None


def _described(kind: object, name: str) -> str:
    if kind is int:
        return "a whole number of bytes or a size like 50G" if name.endswith("_bytes") else "a whole number"
    described: dict[object, str] = {bool: "true or false", float: "a number", str: "text", Path: "an absolute path"}
    return described.get(kind, "a table of whole numbers and texts")


def types_of(section: str) -> dict[str, object]:
    """Return the type of each key of a section."""
    return typing.get_type_hints(SECTIONS[section])


def unknown_section(section: str, source: str) -> ConfigInvalid:
    """Return the error for a section that does not exist."""
    known = f"there are {_listed(SECTIONS)}{_nearest(section, SECTIONS)}"
    return ConfigInvalid(source, f"[{section}]", f"is no section; {known}")


def not_a_section(section: str, source: str) -> ConfigInvalid:
    """Return the error for a value where a section belongs."""
    return ConfigInvalid(source, section, f"must be a section: write [{section}] above its keys")


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _listed(names: typing.Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _service(environment: Mapping[str, str]) -> ServiceConfig:
    interval_us = environment.get("WATCHDOG_USEC", "")
    return ServiceConfig(
        notify_socket=environment.get("NOTIFY_SOCKET") or None,
        watchdog_s=int(interval_us) / 1e6 if interval_us.isdecimal() else None,
        keeps_descriptors=environment.get("FDSTORE", "0") not in ("", "0"),
        descriptors=_passed(environment),
    )


def _passed(environment: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Return the descriptors that systemd's protocol passes, with their names."""
    count, names = environment.get("LISTEN_FDS", ""), environment.get("LISTEN_FDNAMES", "").split(":")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or int(count) != len(names):
        return ()
    return tuple((name, _FIRST_PASSED + place) for place, name in enumerate(names))


def _arm_failpoints(text: str) -> None:
    try:
        failpoints.arm_from(text)
    except (ValueError, KeyError) as exc:
        raise ConfigInvalid("environment variable TASKVAULT_FAILPOINTS", repr(text), f"is not usable: {exc}") from exc
