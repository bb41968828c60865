"""Whether cases determine a model's coefficients: without a penalty, collinear or separating columns leave them open.

A likelihood that rises for ever along some direction still stops a search somewhere, and what it stops at looks like an
estimate: a hazard ratio of 1e260, or two of 1e40 and 1e-40 that cancel. The curvature tells: along such a direction
there is none left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError, count

#: The greatest standard error of a coefficient per standard deviation that still says something: an interval of 20 on
#: either side holds hazard ratios from 1e-9 to 1e9.
GREATEST_ERROR = 10.0
#: Columns whose share in an open direction is below this part of the greatest are not to blame.
_SHARE = 0.1
#: A combination of standardised columns that varies less than this says that they are collinear.
_FLAT = 0.05
_MOST_NAMED = 5
_COLLINEAR = "the columns say the same (they are collinear)"
SEPARATED = "the columns order the events perfectly"


class UndeterminedError(StatisticsError):
    """Some coefficients have no finite estimate.

    Attributes
    ----------
    columns
        Their positions.
    reason
        Why.
    """

    def __init__(self, columns: Sequence[int], of: int, reason: str) -> None:
        self.columns, self.of, self.reason = tuple(columns), of, reason
        super().__init__(self.described([f"column {column}" for column in self.columns]))

    def described(self, names: Sequence[str]) -> str:
        """The sentence, with the columns' names."""
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        return (
            f"{count(len(names), 'coefficient')} of {self.of} {'has' if len(names) == 1 else 'have'} no finite "
            f"estimate, since {self.reason}: {', '.join(names[:_MOST_NAMED])}{more}; leave columns out, or give a "
            "penalty (of 0.01, say)"
        )


def needs_check(penalty: float) -> bool:
    """Whether a squared penalty (of all cases together) is too weak to hold what the cases leave open."""
    return penalty < GREATEST_ERROR**-2


def expect_determined(
    information: FloatArray,
    Z: FloatArray,
    coefficient: FloatArray,
    turn: FloatArray | None = None,
    separated: str = SEPARATED,
) -> None:
    """Refuse coefficients that the cases leave open.

    Parameters
    ----------
    information
        The negative Hessian at the coefficients, with the penalty, shape (columns, columns).
    Z
        The standardised columns, shape (cases, columns).
    coefficient
        Where the search stopped: what runs away is large by then.
    turn
        Where the columns are combinations of others, shape (columns, others): the others are then named.
    separated
        What is said where they are not collinear.

    Raises
    ------
    UndeterminedError
        When some coefficient's standard error is beyond :data:`GREATEST_ERROR`.
    """
    if not len(information):
        return
    if not np.isfinite(information).all():
        raise UndeterminedError(range(Z.shape[1] if turn is None else turn.shape[1]), Z.shape[1], separated)
    size, directions = np.linalg.eigh(information)
    open_ones = directions[:, size < GREATEST_ERROR**-2]
    if not open_ones.shape[1]:
        return
    flat = float((Z @ open_ones).std(axis=0).max()) < _FLAT * (1.0 if turn is None else np.sqrt(len(Z)))
    open_along = open_ones if turn is None else turn.T @ open_ones
    run_away = np.abs(coefficient if turn is None else turn.T @ coefficient)
    share = np.abs(open_along).max(axis=1) if flat else np.where(np.abs(open_along).max(axis=1) > _SHARE, run_away, 0.0)
    columns = np.flatnonzero(share > _SHARE * share.max()).tolist()
    raise UndeterminedError(columns, len(share), _COLLINEAR if flat else separated)


@contextmanager
def naming(names: Sequence[str]) -> Iterator[None]:
    """Within it, an :class:`UndeterminedError` names its columns.

    Raises
    ------
    StatisticsError
        In its place.
    """
    try:
        yield
    except UndeterminedError as error:
        raise named(error, names) from error


def named(error: StatisticsError, names: Sequence[str]) -> StatisticsError:
    """The error with its columns' names, where it has columns."""
    if isinstance(error, UndeterminedError):
        return StatisticsError(error.described([names[column] for column in error.columns]))
    return error
