"""The JSON schema of each command, from the types that the commands print (`taskvault.cli.answers`)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from source_notes import field_notes

from taskvault.cli import answers
from taskvault.cli.answers import ANSWERS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def file_name(command: str) -> str:
    """Return the name of a command's schema."""
    return f"{command.replace(' ', '-')}.json"


def schemas() -> dict[str, str]:
    """Return the text of every schema by the name of its file."""
    return {file_name(command): _schema(command, answer) for command, answer in ANSWERS.items()}


def described(answer: object) -> str:
    """Return how people call a type: `CacheEntry`, `list of CacheEntry`."""
    (schema,), _ = msgspec.json.schema_components([answer], ref_template="{name}")
    return _called(schema)


def _called(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(map(_called, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_called(schema['items'])}"
    if schema.get("type") == "object":
        return f"{_called(schema['additionalProperties'])} by name"
    return str(schema.get("type"))


def _schema(command: str, answer: object) -> str:
    (schema,), components = msgspec.json.schema_components([answer], ref_template="#/$defs/{name}")
    for name, component in components.items():
        notes = field_notes(getattr(answers, name))
        for field, property_ in component.get("properties", {}).items():
            if field in notes:
                property_["description"] = notes[field]
    head = {"$schema": DIALECT, "title": f"tv {command} --json"}
    whole = {**head, **schema, **({"$defs": components} if components else {})}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
