from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import Vault, open_vault

SETTINGS = VaultSettings(capacity_bytes=256 << 20)


@pytest.fixture
def registry() -> PluginRegistry:
    return PluginRegistry()


@pytest.fixture
def home(tmp_path: Path, registry: PluginRegistry) -> Path:
    create_vault(tmp_path / "home", settings=SETTINGS, registry=registry)
    return tmp_path / "home"


@pytest.fixture
async def vault(home: Path, registry: PluginRegistry) -> AsyncIterator[Vault]:
    async with open_vault(home, registry) as vault:
        yield vault
