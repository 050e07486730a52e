"""What a build tool wrote down of when it made things is true after a replay too."""

from __future__ import annotations

import os

import pytest

from tests.runs.case import Bench

pytestmark = pytest.mark.kernel

BUILD = "mkdir b; echo x > b/o; printf '# ninja log v5\\n0\\t1\\t17\\to\\tabc\\n' > b/.ninja_log"


@pytest.mark.parametrize("where", ["bench", "mounted_bench"])
def test_the_log_of_ninja_has_the_times_of_the_replay(where: str, request: pytest.FixtureRequest) -> None:
    place: Bench = request.getfixturevalue(where)
    place.prepare()
    for expected in ("stored", "hit"):
        said = place.driver.start(
            ["run", "--scope", place.scope, "--root", ".", "--", "sh", "-c", BUILD],
            cwd=place.root, environment=place.variables({}),
        ).wait()  # fmt: skip
        assert expected in said.report
        if expected == "stored":
            place.shell("rm -r b")
    made = os.stat(place.root / "b" / "o")
    log = place.root / "b" / ".ninja_log"
    assert log.read_bytes() == b"# ninja log v5\n0\t1\t%d\to\tabc\n" % made.st_mtime_ns
    assert os.stat(log).st_mtime_ns == made.st_mtime_ns
