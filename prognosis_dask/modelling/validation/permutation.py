"""Could the validated figure be chance? The whole validation again with endpoints dealt out anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.maps import Map
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.validation.bootstrap import discrimination
from prognosis_dask.modelling.validation.splitting import expect_folds_can_learn, split_patients


@dataclass(frozen=True, eq=False)
class PermutationResult:
    """A cross-validated figure beside those of permuted endpoints.

    Attributes
    ----------
    observed
        Mean of the held-out folds' C-index, or area under the curve.
    permuted
        The same of each permutation, shape (permutations,).
    p
        One-sided: the share of permutations, the observed order counted with them, that do at least as well.
    """

    observed: float
    permuted: FloatArray
    p: float


def permutation_test(
    table: FeatureTable, procedure: Procedure, permutations: int = 200, folds: int = 5, seed: int = 0, map: Map = map
) -> PermutationResult:
    """Test the hypothesis that the features say nothing of the endpoint (Ojala & Garriga, JMLR 11, 1833, 2010).

    Endpoints are permuted over the cases of patients with as many cases, whole patients at a time; everything, from the
    preparation to the tuning, is done again. One task per permutation.

    Raises
    ------
    StatisticsError
        When there are too few patients with the event, or a training fold cannot carry the procedure.
    """
    if permutations < 1:
        raise StatisticsError(f"{permutations} permutations: expected one or more")
    expect_folds_can_learn(table, folds)
    figures: Iterable[float] = map(partial(_cross_validate, table, procedure, folds, seed), range(-1, permutations))
    observed, *permuted = figures
    return PermutationResult(observed, np.array(permuted), share_as_good(observed, np.array(permuted)))


def share_as_good(observed: float, permuted: FloatArray) -> float:
    """One-sided p; NaN where there is no observed figure. Permutations without a figure count neither way.

    >>> share_as_good(0.7, np.array([0.5, 0.8, 0.6])), share_as_good(0.7, np.array([0.5, np.nan, 0.6]))
    (0.5, 0.3333333333333333)
    >>> share_as_good(float("nan"), np.array([0.5, 0.8]))
    nan
    """
    chance = permuted[np.isfinite(permuted)]
    if not np.isfinite(observed):
        return float("nan")
    return (1 + int((chance >= observed).sum())) / (1 + len(chance))


def permuted_rows(table: FeatureTable, seed: list[int]) -> list[int]:
    """For each row, the row whose endpoint it gets: patients swap theirs with patients of as many cases."""
    rng = np.random.default_rng(seed)
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(table.patient_ids):
        rows_of.setdefault(patient, []).append(row)
    given = [0] * len(table.patient_ids)
    for size in sorted({len(rows) for rows in rows_of.values()}):
        groups = [rows for rows in rows_of.values() if len(rows) == size]
        for rows, other in zip(groups, rng.permutation(len(groups)), strict=True):
            for row, from_row in zip(rows, groups[other], strict=True):
                given[row] = from_row
    return given


def _cross_validate(table: FeatureTable, procedure: Procedure, folds: int, seed: int, draw: int) -> float:
    """Mean held-out figure of one round of folds; draw -1 leaves the endpoints as they are.

    NaN for a permutation whose folds cannot carry the procedure (an inner fold without an event, say).
    """
    if draw < 0:
        return _round(table, procedure, folds, seed)
    permuted = replace(table, endpoint=table.endpoint.rows(np.array(permuted_rows(table, [seed, draw]))))
    try:
        return _round(permuted, procedure, folds, seed)
    except StatisticsError:
        return float("nan")


def _round(table: FeatureTable, procedure: Procedure, folds: int, seed: int) -> float:
    number = split_patients(table, folds, [seed])
    figures = np.array(
        [
            discrimination(
                fit_procedure(procedure, table.rows(number != fold), [seed, fold]), table.rows(number == fold)
            )
            for fold in range(folds)
        ]
    )
    held = figures[np.isfinite(figures)]
    return float(held.mean()) if len(held) else float("nan")
