"""The guides are true: every command in them is run, and what they show is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page import follow
from tests.thinned import thinned

ROOT = Path(__file__).parent.parent.parent
GUIDE = ROOT / "docs" / "guide"


@pytest.mark.kernel
@pytest.mark.parametrize(
    "name", thinned(["mounting-a-cache-directory", "build-outputs-on-the-mount", "ci", "operating"])
)
def test_a_guide_can_be_followed(name: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for command, module in (("tv", "taskvault"), ("tvd", "tvd")):
        (tools / command).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (tools / command).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
        "TASKVAULT_PATIENCE_S": "20",  # the machine that runs the tests may be busy
        "LC_ALL": "C.UTF-8",
    } | {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    try:
        follow(GUIDE / f"{name}.md", home, environment)
    finally:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if line.split()[4].startswith(str(home)):  # only if a command failed
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
