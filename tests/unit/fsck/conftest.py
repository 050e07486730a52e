from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.unit.fsck.damages import DAMAGES, Damage
from tests.unit.fsck.sample_vault import Facts, copy, make, read_everything


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample vault, made once; not to be changed."""
    home = tmp_path_factory.mktemp("template") / "home"
    trio.run(make, home)
    return home


@pytest.fixture(scope="session")
def facts(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What can be read out of the sample."""
    return trio.run(read_everything, copy(template, tmp_path_factory.mktemp("facts") / "home"))


@pytest.fixture
def sample(template: Path, tmp_path: Path) -> Path:
    """A copy of the sample vault."""
    return copy(template, tmp_path / "home")


@pytest.fixture
def damage_called() -> Callable[[str], Damage]:
    return lambda name: next(damage for damage in DAMAGES if damage.name == name)
