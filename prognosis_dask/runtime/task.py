"""What every task does on its worker, around the stage's own function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prognosis_dask.cohort.case import Case
from prognosis_dask.store.outcome import Outcome

StageFunction = Callable[[tuple[Case, ...], tuple[str, ...], Any], list[Outcome]]


def run_task(function: StageFunction, cases: tuple[Case, ...], digests: tuple[str, ...], context: Any) -> list[Outcome]:
    """Run the stage's function on its cases; an outcome per case."""
    return function(cases, digests, context)
