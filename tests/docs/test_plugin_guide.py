"""The author's guide, followed to the letter, by somebody who has nothing but the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.docs.page import follow

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "guide" / "plugins.md"


# The suite has test_plugin_example.py, which does the same with a distribution of its own.
@pytest.mark.slow
def test_the_authors_guide_leads_to_an_installed_and_tested_plugin(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    start = tmp_path / "start"
    start.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        # The page's `pip install` finds our wheel here and nothing else; libraries are lent, not installed.
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of "without"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "LC_ALL": "C.UTF-8",
    } | {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    lend = f"(cd venv/lib/python*/site-packages && echo {sysconfig.get_path('purelib')} > lent.pth)"
    follow(PAGE, start, environment, after={"pip install 'taskvault[testing]'": lend})
