"""The documentation builds as a site, and what it says is proved by tests that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PROOF = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stdout + built.stderr == ""
    assert (tmp_path / "site" / "guide" / "first-steps.html").exists()


def test_each_line_of_the_failure_model_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "design" / "failure-model.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what fails")]
    assert len(rows) > 20
    assert [row for row in rows if not PROOF.search(row)] == []
    for path, name in PROOF.findall(page):
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {name}"
