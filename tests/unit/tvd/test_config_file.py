from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tvd.config import Config, VaultConfig
from tvd.config_file import SECTIONS, ConfigInvalid, default_home, load, with_choices
from tvfs import failpoints


def written(home: Path, text: str) -> Path:
    (home / "config.toml").write_text(text)
    return home


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load(tmp_path, {}) == Config(home=tmp_path)


def test_the_file_sets_what_it_names(tmp_path: Path) -> None:
    config = load(
        written(tmp_path, '[vault]\ncapacity_bytes = "2G"\n[mount]\npath = "/mnt/v"\n[control]\nsend_timeout_s = 5'), {}
    )
    assert config.vault == VaultConfig(capacity_bytes=2 << 30)
    assert config.mountpoint == Path("/mnt/v")
    assert config.control.send_timeout_s == 5.0


def test_the_environment_comes_after_the_file(tmp_path: Path) -> None:
    written(tmp_path, '[log]\nlevel = "error"\nmax_bytes = 100000\n[mount]\nenabled = true')
    environment = {
        "TASKVAULT_LOG_LEVEL": "debug",
        "TASKVAULT_MOUNT_ENABLED": "off",
        "TASKVAULT_CONTROL_DRAIN_TIMEOUT_S": "1.5",
        "TASKVAULT_VAULT_CAPACITY_BYTES": "1g",
    }
    config = load(tmp_path, environment)
    assert (config.log.level, config.log.max_bytes) == ("debug", 100000)
    assert config.mountpoint is None
    assert config.control.drain_timeout_s == 1.5
    assert config.vault.capacity_bytes == 1 << 30


def test_variables_of_the_client_are_none_of_our_business(tmp_path: Path) -> None:
    assert load(tmp_path, {"TASKVAULT": "off", "TASKVAULT_HOME": "/x", "TASKVAULT_SCOPE": "pr/1"}).home == tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[vault", "is not TOML"),
        ("[valut]", "[valut] is no section; there are control, eviction, log, memory, mount"),
        ("vault = 3", "vault must be a section"),
        ("[vault]\ncapacity = 3", "vault.capacity is no setting; [vault] has capacity_bytes, chunking"),
        (
            "[vault]\ncapacity_bytes = 1.5",
            "vault.capacity_bytes is 1.5; it must be a whole number of bytes or a size like 50G",
        ),
        ('[vault]\ncapacity_bytes = "lots"', "write a number of bytes, or a size like 50G"),
        ("[vault]\ncapacity_bytes = 1000", "vault.capacity_bytes is 1000; allowed is 67108864 to"),
        ("[vault]\nhash = 3", "vault.hash is 3; it must be text"),
        ('[vault]\nhash = ""', "vault.hash is ''; it must be text"),
        ("[vault]\nchunking_parameters = {mean = 1.5}", "it must be a table of whole numbers and texts"),
        ('[mount]\nenabled = "yes"', "mount.enabled is 'yes'; it must be true or false"),
        ('[mount]\npath = "relative"', "it must be an absolute path"),
        ("[control]\nmax_connections = true", "control.max_connections is True; it must be a whole number"),
        ("[control]\nmax_connections = 0", "allowed is 1 to"),
        ("[control]\nsend_timeout_s = nan", "control.send_timeout_s is nan; allowed is"),
        ('[log]\nlevel = "loud"', "log.level is 'loud'; allowed is debug, error, info, warning"),
    ],
)
def test_what_cannot_be_used_is_refused_with_file_key_and_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load(written(tmp_path, text), {})
    assert said in str(refused.value)
    assert str(tmp_path / "config.toml") in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TASKVAULT_LOG_LEVLE", "debug", "log.levle is no setting"),
        ("TASKVAULT_MOUNT_ENABLED", "perhaps", "it must be true or false"),
        ("TASKVAULT_CONTROL_MAX_CONNECTIONS", "many", "it must be a whole number"),
        ("TASKVAULT_FAILPOINTS", "nowhere=kill", "no failpoint is called 'nowhere'"),
        ("TASKVAULT_FAILPOINTS", "commit.after_batch=explode", "is not usable"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load(tmp_path, {variable: value})
    assert said in str(refused.value)
    assert variable in str(refused.value)


def test_a_file_that_cannot_be_read_is_an_error_and_not_a_default(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load(tmp_path, {})
    (tmp_path / "config.toml").rmdir()
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigInvalid, match="UTF-8"):
        load(tmp_path, {})


def test_failpoints_are_armed_from_the_environment(tmp_path: Path) -> None:
    try:
        load(tmp_path, {"TASKVAULT_FAILPOINTS": "commit.after_batch=enospc"})
        with pytest.raises(OSError, match="No space"):
            failpoints.reach("commit.after_batch")
    finally:
        failpoints.disarm_all()


def test_the_service_managers_wishes_are_read(tmp_path: Path) -> None:
    service = load(tmp_path, {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000"}).service
    assert (service.notify_socket, service.watchdog_s) == ("/run/n", 3.0)
    assert load(tmp_path, {"WATCHDOG_USEC": "often"}).service.watchdog_s is None


def test_the_command_line_comes_last(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[vault]\nhash = "blake3"'), {})
    chosen = with_choices(config, {"size": "300M", "hash": "sha256"})
    assert chosen.vault == VaultConfig(capacity_bytes=300 << 20, hash="sha256")
    with pytest.raises(ConfigInvalid, match="--size"):
        with_choices(config, {"size": "tiny"})


def test_home_is_named_by_the_environment_or_is_the_users() -> None:
    assert default_home({"TASKVAULT_HOME": "/srv/v"}) == Path("/srv/v")
    assert default_home({}) == Path.home() / ".taskvault"


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS.keys())
def test_every_setting_is_documented_and_every_default_is_allowed(section: type) -> None:
    source = Path(__import__(section.__module__, fromlist=["x"]).__file__).read_text()
    body = source.split(f"class {section.__name__}:")[1].split("@dataclass")[0]
    for field in dataclasses.fields(section):
        after = body.split(f"    {field.name}:")[1].splitlines()[1]
        assert after.strip().startswith('"""'), f"{section.__name__}.{field.name} has no reason"
        value = getattr(section(), field.name)
        if "least" in field.metadata:
            assert field.metadata["least"] <= value <= field.metadata["most"]
        if "allowed" in field.metadata:
            assert value in field.metadata["allowed"]
