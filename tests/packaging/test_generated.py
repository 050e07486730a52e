"""What is made from the sources is what would be made now."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from taskvault.cli.answers import ANSWERS
from taskvault.cli.application import every_command
from tvd.metrics import METRICS

ROOT = Path(__file__).parent.parent.parent
SCHEMAS = ROOT / "docs" / "reference" / "schemas"


def generated(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
    command = [sys.executable, str(ROOT / "packaging" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


@pytest.mark.parametrize("script", ["reference.py", "man_pages.py"])
def test_generated_pages_are_up_to_date(script: str) -> None:
    done = generated(script, "--check")
    assert done.returncode == 0, done.stderr


def test_a_page_that_was_edited_or_is_not_wanted_is_stale(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from generated import *\n"
        "place = Path(sys.argv[2])\n"
        "make = lambda check: bring_up_to_date(place, {'a': 'x', 'b': 'y'}, 'make it', check=check)\n"
        "assert make(True) == 1\n"
        "assert make(False) == 0 and make(True) == 0\n"
        "(place / 'a').write_text('edited')\n"
        "assert make(True) == 1 and make(False) == 0 and (place / 'a').read_text() == 'x'\n"
        "(place / 'c').write_text('surplus')\n"
        "assert make(True) == 1 and make(False) == 0 and not (place / 'c').exists()\n"
    )
    command = [sys.executable, "-c", script, str(ROOT / "packaging"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a is not up to date; run `make it`." in done.stderr


def test_every_command_has_a_manual_page_and_the_wheel_carries_them() -> None:
    pages = {path.stem for path in (ROOT / "man" / "man1").glob("*.1")}
    assert pages == {"tv", *(f"tv-{name.replace(' ', '-')}" for name, _ in every_command())}
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert built["shared-data"]["man"] == "share/man"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff to check roff")
def test_no_manual_page_gives_a_warning() -> None:
    pages = sorted((ROOT / "man").glob("man?/*"))
    assert len(pages) > 20
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", *map(str, pages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_with_json_has_a_schema_and_no_schema_is_of_none() -> None:
    with_json = {name for name, command in every_command() if any("--json" in option.opts for option in command.params)}
    assert with_json - ANSWERS.keys() == set(), (
        "add a line to ANSWERS in taskvault/cli/answers.py, then `make reference`"
    )
    assert ANSWERS.keys() - with_json == set()
    files = {path.name for path in SCHEMAS.glob("*.json")}
    assert files == {f"{name.replace(' ', '-')}.json" for name in ANSWERS}


def test_every_field_of_an_object_in_a_schema_is_described_or_plain() -> None:
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        assert schema["title"].startswith("tv ")
        for name, kind in schema.get("$defs", {}).items():
            assert kind["description"], f"{path.name}: {name} does not say what it is"


def test_metrics_have_one_name_each_in_the_form_of_the_field() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.startswith("taskvault_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
