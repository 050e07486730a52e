"""What was asked for, checked; nothing of the inputs is read yet, and nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from taskvault.run.environment import changed_environment, counting_variables
from taskvault.run.outputs import parse_outputs
from taskvault.run.patterns import PatternSet
from taskvault.run.project import NO_RULES, ProjectRules, read_rules
from taskvault.run.request import RunRequest
from taskvault.run.root import Place, find_place
from taskvault.run.weak_key import counting


@dataclass(frozen=True, slots=True)
class Declaration:
    """A request that makes sense."""

    place: Place
    inputs: PatternSet
    outputs: PatternSet
    environment: Mapping[str, str]
    """Of the command."""
    counting: Mapping[str, str]
    """Variables that are in the key of a declared run."""
    rules: ProjectRules = NO_RULES
    """What the project says."""


def declare(request: RunRequest) -> Declaration:
    """Check what was asked for.

    Raises `PatternInvalid`, `RootInvalid`, `VariableInvalid` or `ProjectInvalid`: errors of the caller.
    """
    environment = changed_environment(request.environment, request.variables)
    traced = not (request.inputs or request.outputs)
    # Compilers of packages are started where those lie, and write into the project.
    place = find_place(request.workdir, request.root, anywhere=traced)
    rules = read_rules(place.root)
    key_variables = counting_variables(environment, request.variables, rules)
    passed = rules.passed(environment, counting(environment, request.variables, rules)) if traced else environment
    return Declaration(
        place=place,
        inputs=PatternSet(request.inputs),
        outputs=parse_outputs(request.outputs),
        environment=passed,
        counting=key_variables,
        rules=rules,
    )
