from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvfs import failpoints
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings


@pytest.fixture
def registry() -> PluginRegistry:
    return PluginRegistry()


@pytest.fixture
def vault_home(tmp_path: Path, registry: PluginRegistry) -> Path:
    create_vault(tmp_path / "home", settings=VaultSettings(capacity_bytes=256 << 20), registry=registry)
    return tmp_path / "home"


@pytest.fixture
def armed() -> Iterator[None]:
    """For tests that arm failpoints in their own process."""
    yield
    failpoints.disarm_all()


def du(home: Path) -> int:
    command = ["du", "-x", "-s", "--block-size=1", f"--exclude={home}/mnt", str(home)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[0])
