from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tvfs import failpoints
from tvfs.packs.pack_directory import PackDirectory

UUID = bytes(range(16))


@pytest.fixture
def packs(tmp_path: Path) -> Iterator[PackDirectory]:
    """An empty directory of packs that keeps two of them open."""
    directory = PackDirectory(tmp_path, UUID, max_open_packs=2)
    yield directory
    directory.close()


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    yield
    failpoints.disarm_all()
