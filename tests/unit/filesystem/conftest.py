from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvfs import failpoints
from tvfs.testing.memory_vault import MemoryWorld


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MemoryWorld]:
    world = MemoryWorld(tmp_path)
    try:
        yield world
    finally:
        failpoints.disarm_all()
        await world.aclose()
