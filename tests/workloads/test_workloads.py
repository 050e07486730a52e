"""Real work through `tv run`: the small ones always, all of them where there is time (`make workloads`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workloads.bench import Bench
from tests.workloads.table import WORKLOADS
from tests.workloads.vault import Up, vault_up
from tests.workloads.workload import Workload

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with vault_up(tmp_path_factory.mktemp("vault") / "home") as up:
        yield up


SMALL = [workload for workload in WORKLOADS if workload.small]


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.name)
def test_small_work_is_stored_and_replayed(vault: Up, tmp_path: Path, workload: Workload) -> None:
    told = Bench(workload, tmp_path / workload.name, vault.tv, vault.environment).carry_out(briefly=True)
    assert not told.wrong


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_real_work_is_stored_replayed_and_never_wrong(vault: Up, tmp_path: Path, workload: Workload) -> None:
    missing = [program for program in workload.programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: make workloads installs them")
    told = Bench(workload, tmp_path / workload.name, vault.tv, vault.environment).carry_out()
    assert not told.wrong
