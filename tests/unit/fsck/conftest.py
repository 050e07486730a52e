from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

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
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: a catalog syncs a lot, and none of this must outlive a power loss."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory, prefix="taskvault-test-") as directory:
        yield Path(directory)


@pytest.fixture
def sample(template: Path, place: Path) -> Path:
    """A copy of the sample vault."""
    return copy(template, place / "home")


@pytest.fixture
def damage_called() -> Callable[[str], Damage]:
    return lambda name: next(damage for damage in DAMAGES if damage.name == name)
