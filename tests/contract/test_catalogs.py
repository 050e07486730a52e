"""Both catalogs keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvfs.catalog.catalog import Catalog
from tvfs.catalog.memory import MemoryCatalog
from tvfs.catalog.rocks import RocksCatalog
from tvfs.testing.catalog_contract import CatalogContract


class TestMemoryCatalog(CatalogContract):
    def make_catalog(self) -> Catalog:
        return MemoryCatalog()


class TestRocksCatalog(CatalogContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "meta"

    def make_catalog(self) -> Catalog:
        return RocksCatalog(self.path)
