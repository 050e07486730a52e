"""All workloads."""

from __future__ import annotations

from tests.workloads.compiled import COMPILED
from tests.workloads.others import OTHERS

WORKLOADS = (*COMPILED, *OTHERS)
