"""What was asked for, checked; nothing of the inputs is read yet, and nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from taskvault.run.environment import changed_environment, counting_variables
from taskvault.run.outputs import parse_outputs
from taskvault.run.patterns import PatternSet
from taskvault.run.request import RunRequest
from taskvault.run.root import Place, find_place


@dataclass(frozen=True, slots=True)
class Declaration:
    """A request that makes sense."""

    place: Place
    inputs: PatternSet
    outputs: PatternSet
    environment: Mapping[str, str]
    """Of the command."""
    counting: Mapping[str, str]
    """Variables that are in the key."""


def declare(request: RunRequest) -> Declaration:
    """Check what was asked for; raise `PatternInvalid`, `RootInvalid` or `VariableInvalid`: errors of the caller."""
    environment = changed_environment(request.environment, request.variables)
    return Declaration(
        place=find_place(request.workdir, request.root),
        inputs=PatternSet(request.inputs),
        outputs=parse_outputs(request.outputs),
        environment=environment,
        counting=counting_variables(environment, request.variables),
    )
