"""Are two procedures different? Paired over the folds that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan, sqrt

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.metrics.intervals import interval, mean_held
from prognosis_dask.modelling.metrics.measured import Measured
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.nested import FoldResult


@dataclass(frozen=True)
class PairedTest:
    """Outcome of a paired test: the mean difference, its 95 % interval, the p-value (two-sided)."""

    difference: float
    lower: float
    upper: float
    p: float


def corrected_t(differences: FloatArray, test_per_train: float) -> PairedTest:
    """t-test of differences from folds whose training cases overlap (Nadeau & Bengio, Mach Learn 52, 2003).

    The variance of their mean is taken as ``(1 / J + n_test / n_train)`` times that of the ``J`` differences, since
    folds that share training cases tell less than independent ones; for repeated cross-validation, see Bouckaert &
    Frank (2004).

    Parameters
    ----------
    differences
        One for each fold of each repeat; shape (J,). NaN (no value in the fold) are left out.
    test_per_train
        Held-out over training cases: 0.25 for five folds.

    Raises
    ------
    StatisticsError
        When fewer than two folds have a value.
    """
    from scipy.special import stdtr, stdtrit

    held = differences[np.isfinite(differences)]
    if len(held) < 2:
        raise StatisticsError(f"corrected resampled t-test: {len(held)} folds have a value; two or more are needed")
    mean, df = float(held.mean()), len(held) - 1
    error = sqrt((1 / len(held) + test_per_train) * float(held.var(ddof=1)))
    if error == 0:
        return PairedTest(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    reach = float(stdtrit(df, 0.975)) * error
    return PairedTest(mean, mean - reach, mean + reach, float(2 * stdtr(df, -abs(mean) / error)))


def wilcoxon(differences: FloatArray) -> float:
    """Wilcoxon's signed rank test, two-sided p-value: 1 where all differences are zero.

    It takes the differences as independent. Those of overlapping folds, or of models of 1, 2, 3... features on the same
    cases, are not: it then finds differences that are not there.

    Parameters
    ----------
    differences
        Shape (pairs,); NaN are left out.

    Raises
    ------
    StatisticsError
        When there is none.
    """
    from scipy.stats import wilcoxon as signed_rank

    held = differences[np.isfinite(differences)]
    if not len(held):
        raise StatisticsError("Wilcoxon's signed rank test: no pair has a difference")
    if not held.any():
        return 1.0
    tied = len(np.unique(np.abs(held))) < len(held) or not held.all()
    return float(signed_rank(held, method="approx" if tied or len(held) > 50 else "exact").pvalue)


def difference_rows(measured: Mapping[str, Measured], results: Sequence[FoldResult]) -> list[Row]:
    """Every pair of procedures by every measure: ``a`` less ``b``, with tests.

    ``lower``, ``upper``, ``p`` and ``p_corrected`` are of :func:`corrected_t`; where the validation was repeated on
    halves of the patients, the first three come from those (:mod:`modelling.validation.halves`). ``p_holm`` is
    ``p`` for all pairs of the measure at once, see :func:`holm`. ``lower_drawn``
    and ``upper_drawn`` draw the patients and keep the models. ``p_wilcoxon`` is what studies often print, see
    :func:`wilcoxon`. For scores (ibs, brier) a negative difference is in favour of ``a``.

    Parameters
    ----------
    measured
        By procedure; the folds in the same order.
    results
        The folds of any one of the procedures.
    """
    ratio = float(np.mean([len(result.test) / max(len(result.train), 1) for result in results]))
    rows: list[Row] = []
    for a, b in combinations(measured, 2):
        for measure in measured[a].fold_values:
            values, others = measured[a].fold_values[measure], measured[b].fold_values[measure]
            if values.shape != others.shape:
                raise StatisticsError(f"{a} and {b} were not validated on the same folds: {len(values)}, {len(others)}")
            rows.append({"a": a, "b": b, "measure": measure, **_difference(values - others, ratio)})
    adjust(rows)
    return rows


def adjust(rows: Sequence[Row]) -> None:
    """Write ``p_holm``: ``p`` for all pairs of a measure at once, see :func:`holm`."""
    for measure in {row["measure"]: None for row in rows}:
        same = [row for row in rows if row["measure"] == measure]
        for row, p in zip(same, holm([row["p"] for row in same]), strict=True):
            row["p_holm"] = p


def holm(p: Sequence[float]) -> list[float]:
    """P-values for all of the tests at once (Holm, Scand J Statist 6, 65, 1979); NaN stays and does not count.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]
    """
    held = sorted((value, i) for i, value in enumerate(p) if not isnan(value))
    adjusted, greatest = [nan] * len(p), 0.0
    for rank, (value, i) in enumerate(held):
        greatest = max(greatest, min(1.0, (len(held) - rank) * value))
        adjusted[i] = greatest
    return adjusted


def _difference(differences: FloatArray, ratio: float) -> Row:
    nothing = float("nan")
    mean = mean_held(differences)
    lower_drawn, upper_drawn = interval(mean[1:])
    row: Row = {"difference": float(mean[0]), "lower": nothing, "upper": nothing}
    row |= {
        "p": nothing,
        "p_holm": nothing,
        "p_corrected": nothing,
        "p_wilcoxon": nothing,
        "lower_drawn": lower_drawn,
        "upper_drawn": upper_drawn,
    }
    try:
        test = corrected_t(differences[:, 0], ratio)
        row |= {"lower": test.lower, "upper": test.upper, "p": test.p, "p_corrected": test.p}
        return row | {"p_wilcoxon": wilcoxon(differences[:, 0]), "note": ""}
    except StatisticsError as error:
        return row | {"note": str(error)}
