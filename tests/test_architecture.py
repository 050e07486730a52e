"""What the repository promises about its own shape: sizes, names, and a line of documentation for each folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / "tvfs", ROOT / "tvd", ROOT / "taskvault", ROOT / "plugins" / "tvplugins"]
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
# Names that say nothing about what belongs inside, and so attract everything.
BANNED_NAMES = {"utils", "util", "helpers", "common", "manager", "data", "info", "misc", "core"}


def modules() -> Iterator[Path]:
    """Every module that a person wrote."""
    for package in PACKAGES:
        paths = sorted(package.rglob("*.py"))
        yield from (path for path in paths if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))


def folders() -> list[str]:
    return sorted({str(path.parent.relative_to(ROOT)) for path in modules()})


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_module = pytest.mark.parametrize("path", list(modules()), ids=place)


@each_module
def test_a_module_is_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MODULE_LINES_MAX, f"{place(path)} has {lines} lines; split it by what it is for"


@each_module
def test_a_function_is_short(path: Path) -> None:
    long = [
        f"{place(path)}:{node.lineno} {node.name} has {lines} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long


WAITS_FOR_AS_LONG_AS_IT_TAKES = {
    "taskvault/demo.py": "runs the builds that it shows",
    "taskvault/cli/daemon_process.py": "tvd, which makes, checks or repairs a vault, and is stopped with us",
}


@each_module
def test_who_waits_for_a_program_says_how_long(path: Path) -> None:
    waits = [
        f"{place(path)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if "testing" not in path.parts
        and isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("subprocess.run", ".communicate", "check_output"))
        and not any(keyword.arg == "timeout" for keyword in node.keywords)
    ]
    assert not waits or place(path) in WAITS_FOR_AS_LONG_AS_IT_TAKES


@each_module
def test_a_broad_except_says_why(path: Path) -> None:
    lines = path.read_text().splitlines()
    silent = [
        f"{place(path)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and catches_everything(node)
        and not re.search(r"#\W*\w", re.sub(r"noqa: [A-Z]+[0-9]+", "", lines[node.lineno - 1]))
        and not lines[node.lineno - 2].lstrip().startswith("#")
    ]
    assert not silent, f"say in a comment why everything is caught: {silent}"


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it swallows: one that cleans up and ends in a bare `raise` explains itself."""
    last = handler.body[-1]
    reraises = isinstance(last, ast.Raise) and last.exc is None
    broad = handler.type is None or bool(re.search(r"\b(Base)?Exception\b", ast.unparse(handler.type)))
    return broad and not reraises


def test_no_module_or_folder_has_a_name_that_says_nothing() -> None:
    named = {part: place(path) for path in modules() for part in (path.stem, path.parent.name)}
    assert not {name: where for name, where in named.items() if name in BANNED_NAMES}


def test_every_folder_has_one_line_in_the_architecture() -> None:
    rows = re.findall(r"^\| `([^`]+)/` \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows)), "a folder has two lines"
    missing = [folder for folder in folders() if folder not in rows]
    assert not missing, f"add to the table in ARCHITECTURE.md: {missing}"


def test_every_decision_is_listed() -> None:
    decisions = ROOT / "docs" / "decisions"
    index = (decisions / "README.md").read_text()
    records = [path.name for path in decisions.glob("*.md") if path.name != "README.md"]
    assert not [name for name in records if f"({name})" not in index], "add it to docs/decisions/README.md"
    assert all(re.match(r"\d{4}-[a-z0-9-]+\.md$", name) for name in records)
    numbers = [name[:4] for name in records]
    assert len(numbers) == len(set(numbers)), "two decisions have one number"


def test_every_change_fragment_is_named_by_its_kind() -> None:
    fragments = [path.name for path in (ROOT / "changes").glob("*") if path.name != "README.md"]
    named = re.compile(r"[a-z0-9-]+\.(added|changed|fixed|removed|security)\.md$")
    assert all(named.match(name) for name in fragments), "see changes/README.md"


def test_every_package_is_typed() -> None:
    assert all((package / "py.typed").exists() for package in PACKAGES)
