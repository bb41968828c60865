"""From a table's columns to what selectors and learners take: complete, harmonised, pruned, standardised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.combat import Combat, fit_combat
from prognosis_dask.modelling.data.table import FeatureTable, varying
from prognosis_dask.modelling.imputing import Imputation
from prognosis_dask.modelling.procedure import Procedure

#: Columns whose correlations are held at a time.
_BLOCK = 1000


@dataclass(frozen=True)
class Preparation:
    """What was learnt from the training cases about the columns.

    Attributes
    ----------
    median
        What a missing value becomes, per column of the table.
    combat, harmonised
        The harmonisation, and the positions of the columns it applies to; None without one.
    kept
        Positions of the columns that are left after pruning.
    mean, scale
        Of the kept columns: mean and standard deviation.
    weight
        What a standardised column is multiplied with: a penalty bears less on a column of greater weight.
    lower, upper
        What a standardised and weighted value is bounded at; None: no bounds.
    imputation
        What missing values are expected to be, given the other columns; None: the median.
    """

    median: FloatArray
    combat: Combat | None
    harmonised: IntArray
    kept: IntArray
    mean: FloatArray
    scale: FloatArray
    weight: FloatArray
    lower: FloatArray | None = None
    upper: FloatArray | None = None
    imputation: Imputation | None = None

    def apply(self, X: FloatArray, site: Sequence[str]) -> FloatArray:
        """The kept columns, standardised, weighted and bounded; ``X`` has all of the table's columns."""
        Z = self._unbounded(X, site)
        return Z if self.lower is None or self.upper is None else np.clip(Z, self.lower, self.upper)

    def bounded(self, X: FloatArray, site: Sequence[str]) -> BoolArray:
        """Which values are bounded, shape (cases, kept columns)."""
        Z = self._unbounded(X, site)
        if self.lower is None or self.upper is None:
            return np.zeros(Z.shape, dtype=bool)
        return np.asarray((self.lower > Z) | (self.upper < Z))

    def limits(self) -> tuple[FloatArray, FloatArray] | None:
        """The least and the greatest value that is taken as it is, of each kept column in its own unit."""
        if self.lower is None or self.upper is None:
            return None
        unit = self.scale / self.weight
        return self.mean + self.lower * unit, self.mean + self.upper * unit

    def _unbounded(self, X: FloatArray, site: Sequence[str]) -> FloatArray:
        X = completed(X, self.median, self.imputation)
        if self.combat is not None:
            X[:, self.harmonised] = self.combat.apply(X[:, self.harmonised], site)
        return np.asarray((X[:, self.kept] - self.mean) * (self.weight / self.scale))


def completed(X: FloatArray, median: FloatArray, imputation: Imputation | None) -> FloatArray:
    """The columns without a missing value."""
    return np.where(np.isnan(X), median, X) if imputation is None else imputation.complete(X, median)


def fit_preparation(
    table: FeatureTable, free: BoolArray, procedure: Procedure, imputation: Imputation | None = None
) -> Preparation:
    """Learn from the training cases how columns are completed, harmonised, pruned and standardised.

    Columns without any value, and constant ones, are left out.

    Parameters
    ----------
    table
        The training cases.
    free
        Which columns are harmonised and pruned; the others are only completed and standardised.
    procedure
        Says how.
    imputation
        How missing values are completed; None: by the median.

    Raises
    ------
    StatisticsError
        When a value is infinite, or harmonisation is asked for and the sites are unknown.
    """
    expect_finite(table)
    held = ~np.isnan(table.X).all(axis=0)
    median = np.zeros(len(held))
    lacking = np.isnan(table.X).any(axis=0)
    median[~lacking] = np.median(table.X[:, ~lacking], axis=0)
    median[held & lacking] = np.nanmedian(table.X[:, held & lacking], axis=0)
    X = completed(table.X, median, imputation)
    harmonised = np.flatnonzero(free & held) if procedure.harmonise else np.arange(0)
    combat = _fit_combat(X[:, harmonised], table, procedure) if procedure.harmonise else None
    if combat is not None:
        X[:, harmonised] = combat.apply(X[:, harmonised], table.site)
    keep = np.zeros(len(held), dtype=bool)
    keep[varying(X)] = True
    among = procedure.reproducible or table.features
    keep[free & (_flat(X, procedure.variance) | ~np.isin(table.features, among))] = False
    candidates = np.flatnonzero(keep & free)
    keep[candidates[_redundant(X[:, candidates], procedure.correlation)]] = False
    kept = np.flatnonzero(keep)
    weight = np.ones(len(kept))
    if procedure.balance_families:
        _, family, size = np.unique(np.array(table.families)[kept], return_inverse=True, return_counts=True)
        weight = 1.0 / np.sqrt(size[family])
    mean, scale = X[:, kept].mean(axis=0), X[:, kept].std(axis=0, ddof=1)
    prepared = Preparation(median, combat, harmonised, kept, mean, scale, weight, imputation=imputation)
    if not procedure.bound:
        return prepared
    Z, margin = (X[:, kept] - mean) * (weight / scale), procedure.bound_margin * weight
    return replace(prepared, lower=Z.min(axis=0) - margin, upper=Z.max(axis=0) + margin)


def expect_finite(table: FeatureTable) -> None:
    """Refuse infinite values.

    Raises
    ------
    StatisticsError
        Naming the first feature and case.
    """
    row, column = np.nonzero(np.isinf(table.X))
    if len(row):
        raise StatisticsError(
            f"{len(row)} values are infinite, the first of feature {table.features[column[0]]} in case "
            f"{table.case_ids[row[0]]}: leave the feature or the case out, or mark the value as missing"
        )


def _fit_combat(X: FloatArray, table: FeatureTable, procedure: Procedure) -> Combat:
    if not table.site:
        how = procedure.harmonise
        raise StatisticsError(f"harmonise is {how!r}, and the table does not say which site its cases are from")
    patients = _drawn_apart(table) if procedure.harmonise == "longitudinal-combat" else ()
    return fit_combat(X, table.site, reference=procedure.reference_site, patients=patients)


def expect_repeated_scans(table: FeatureTable, folds: int) -> None:
    """Refuse a cohort for longitudinal ComBat whose training folds may have no patient with several scans.

    Raises
    ------
    StatisticsError
        When there are fewer such patients than two per fold.
    """
    several = {name.rpartition("#")[0] for name, scans in Counter(_drawn_apart(table)).items() if scans > 1}
    if len(several) < 2 * folds:
        raise StatisticsError(
            f"harmonise is 'longitudinal-combat', and {count(len(several), 'patient')} of "
            f"{len(set(table.patient_ids))} have two scans that differ, expected {2 * folds} or more for {folds} "
            "folds: take harmonise = 'combat', or fewer folds"
        )


def _drawn_apart(table: FeatureTable) -> list[str]:
    """The patients; of a bootstrap sample a patient's copies are patients of their own: a copy is no second scan."""
    drawn: Counter[tuple[str, bytes]] = Counter()
    names = []
    for patient, row in zip(table.patient_ids, np.ascontiguousarray(table.X), strict=True):
        scan = (patient, row.tobytes())
        names.append(f"{patient}#{drawn[scan]}")
        drawn[scan] += 1
    return names


def _flat(X: FloatArray, least: float) -> BoolArray:
    """Columns whose variance, once they are scaled to 0..1, is below ``least``."""
    spread = np.ptp(X, axis=0)
    return np.asarray(X.var(axis=0) < least * spread**2)


def _redundant(X: FloatArray, most: float) -> BoolArray:
    """Columns whose absolute Spearman correlation with an earlier one that stays is above ``most``."""
    redundant = np.zeros(X.shape[1], dtype=bool)
    if most >= 1 or X.shape[1] < 2:
        return redundant
    from scipy.stats import rankdata

    ranks = rankdata(X, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    unit = np.asfortranarray(ranks / np.sqrt((ranks**2).sum(axis=0)))
    for start in range(0, X.shape[1], _BLOCK):  # never all features beside all features
        block = slice(start, min(start + _BLOCK, X.shape[1]))
        for before in range(0, start, _BLOCK):
            stays = before + np.flatnonzero(~redundant[before : before + _BLOCK])
            redundant[block] |= (np.abs(unit[:, stays].T @ unit[:, block]) > most).any(axis=0)
        close = np.abs(unit[:, block].T @ unit[:, block]) > most
        for column in range(block.stop - start):
            if not redundant[start + column]:
                redundant[start + column + 1 : block.stop] |= close[column, column + 1 :]
    return redundant
