"""What the sources say of themselves: the strings below fields, which Python itself forgets."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache


def field_notes(owner: type) -> dict[str, str]:
    """Return, by name, the string that stands below each field of a class or of the classes above it."""
    found: dict[str, str] = {}
    for kind in reversed(owner.__mro__):
        if kind.__module__.split(".")[0] in ("taskvault", "tvd", "tvfs"):
            found |= _notes_of(kind)
    return found


def sentence(owner: object) -> str:
    """Return the whole docstring of something, as one paragraph a line."""
    text = inspect.cleandoc(getattr(owner, "__doc__", None) or "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


@cache
def _notes_of(kind: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        named = field.target if isinstance(field, ast.AnnAssign) else None
        if isinstance(field, ast.Assign) and isinstance(field.targets[0], ast.Name):
            named = field.targets[0]
        is_note = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(named, ast.Name) and is_note and isinstance(below.value.value, str):
            found[named.id] = " ".join(below.value.value.split())
    return found
