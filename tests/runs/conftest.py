"""One vault with its daemon and mount, and one driver, for all tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Vault, clean_up
from tests.launched import Launcher
from tests.runs.case import Bench
from tests.runs.driver import Driver
from tests.vaults_in_order import assert_in_order


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A vault that is up and mounted."""
    made = Vault(tmp_path_factory.mktemp("vault") / "home")
    made.tv("init", "--size", "1G")
    made.tv("up")
    pid = made.pid
    yield made
    made.tv("down")
    clean_up(made, pid)
    assert_in_order(made.home)


@pytest.fixture(scope="session")
def driver(vault: Vault) -> Iterator[Driver]:
    made = Driver({**os.environ, "PYTHONPATH": vault.environment()["PYTHONPATH"]})
    yield made
    made.stop()


@pytest.fixture(scope="session")
def launcher(vault: Vault, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    made = Launcher(tmp_path_factory.mktemp("launcher") / "l", [])
    environment = {**environment_of(vault), "HOME": "/nonexistent"}
    made.warm_up(tmp_path_factory.mktemp("warm"), environment)
    return made


@pytest.fixture
def bench(vault: Vault, driver: Driver, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    """A place on plain disk."""
    scope = f"s{abs(hash(request.node.nodeid)):x}"
    return Bench(driver, tmp_path / "base", environment_of(vault), scope)


@pytest.fixture
def mounted_bench(vault: Vault, driver: Driver, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    """A place under the mount."""
    scope = f"m{abs(hash(request.node.nodeid)):x}"
    base = vault.mount / "work" / scope / "base"
    base.parent.mkdir()
    return Bench(driver, base, environment_of(vault), scope)


def environment_of(vault: Vault) -> dict[str, str]:
    wanted = ("PATH", "TASKVAULT_HOME", "TASKVAULT_PATIENCE_S")
    return {name: value for name, value in vault.environment().items() if name in wanted}
