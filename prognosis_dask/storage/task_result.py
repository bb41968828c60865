"""What became of one stage of one case: the row of the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from prognosis_dask.errors import Problem


@dataclass(frozen=True)
class TaskResult:
    """One stage of one case, done or failed.

    Attributes
    ----------
    case_id, stage, digest
        Whose, which stage, and the digest of everything the result depends on (input and job).
    problem
        None when the stage is done, else why it failed.
    seconds
        Seconds per named step (``read``, ``rasterise``, ``write``, ...), ``total`` among them.
    values
        Small named values (numbers, or lists of them, or texts) that the feature dataset and the report read.
    warnings
        What has to be known of the case although it is used (:func:`prognosis_dask.errors.warn`).
    """

    case_id: str
    stage: str
    digest: str
    problem: Problem | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
