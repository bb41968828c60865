"""Dealing patients into folds, and patients drawn with replacement."""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable


def split_patients(table: FeatureTable, folds: int, seed: list[int]) -> IntArray:
    """Deal the patients into folds; the fold's number of each row.

    All cases of a patient share a fold. Shuffled patients are dealt out like cards, stratum after stratum
    (:meth:`Survival.strata <modelling.data.endpoint.Survival.strata>`), so that each fold has its share of
    every stratum to within one patient, and of every site within a stratum where the sites are known: what is learnt of
    a site needs its patients in each training fold. A patient's first case says which stratum and site it is of.

    Raises
    ------
    StatisticsError
        When a fold would be empty.
    """
    rng = np.random.default_rng(seed)
    patients, first, patient = np.unique(table.patient_ids, return_index=True, return_inverse=True)
    if len(patients) < folds:
        raise StatisticsError(f"{len(patients)} patients cannot be dealt into {folds} folds: take fewer folds")
    shuffled = rng.permutation(len(patients))
    strata = table.endpoint.strata()[first][shuffled]
    site = np.array(table.site)[first][shuffled] if table.site else np.zeros(len(patients))
    dealt = shuffled[np.lexsort((site, strata))]
    number = np.empty(len(patients), dtype=np.int64)
    number[dealt] = np.arange(len(patients)) % folds
    return np.asarray(number[patient])


def draw_patients(table: FeatureTable, seed: list[int]) -> IntArray:
    """A bootstrap sample: rows of as many patients as there are, drawn with replacement; all cases of one together."""
    patients, patient = np.unique(table.patient_ids, return_inverse=True)
    rows_of = np.split(np.argsort(patient, kind="stable"), np.cumsum(np.bincount(patient))[:-1])
    drawn = np.random.default_rng(seed).integers(len(patients), size=len(patients))
    return np.concatenate([rows_of[i] for i in drawn])


def expect_folds_can_learn(table: FeatureTable, folds: int) -> None:
    """Refuse a cohort whose training folds may be without what there is to learn.

    Raises
    ------
    StatisticsError
        When there are fewer patients with the event, or in a class, than folds and than two.
    """
    if isinstance(table.endpoint, Survival):
        counts = {"patients with the event": len({p for p, e in zip(table.patient_ids, table.event, strict=True) if e})}
    else:
        label = table.endpoint.label
        counts = {
            f"patients of class {name}": len({p for p, c in zip(table.patient_ids, label, strict=True) if c == i})
            for i, name in enumerate(table.endpoint.names)
        }
    for what, found in counts.items():
        if found < max(2, folds):
            raise StatisticsError(
                f"{found} {what}: a fold of {folds} would have none; take fewer folds, or a cohort with more of them"
            )
