"""Every catalog keeps the contract, also with the counting around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvfs.catalog.catalog import Catalog
from tvfs.catalog.memory import MemoryCatalog
from tvfs.catalog.rocks import RocksCatalog
from tvfs.clock import ManualClock
from tvfs.testing.catalog_contract import CatalogContract
from tvfs.vault.counting import CountingCatalog


class TestMemoryCatalog(CatalogContract):
    def make_catalog(self) -> Catalog:
        return MemoryCatalog()


class TestRocksCatalog(CatalogContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "meta"

    def make_catalog(self) -> Catalog:
        return RocksCatalog(self.path)


class TestCountingMemoryCatalog(TestMemoryCatalog):
    def make_catalog(self) -> Catalog:
        return CountingCatalog(super().make_catalog(), function="blake3", clock=ManualClock())


class TestCountingRocksCatalog(TestRocksCatalog):
    def make_catalog(self) -> Catalog:
        return CountingCatalog(super().make_catalog(), function="blake3", clock=ManualClock())
