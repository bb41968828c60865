"""What the reference study reports, and what chance reports beside it. Every figure here is in-sample.

Chen et al. (Medical Physics, 2023) fit a Cox model on the first k selected features and measure its concordance on the
cases that it was selected and fitted on. Such a figure rises with k on any features, so it means something only beside
that of features drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.cox import cox_curve
from prognosis_dask.statistics.endpoint import Endpoint, FloatArray, IntArray, Survival
from prognosis_dask.statistics.learners.logistic import fit_logistic
from prognosis_dask.statistics.measures.classes import class_auc
from prognosis_dask.statistics.table import FeatureTable, varying

#: Draws of random features, as many as a range needs to be read by eye.
DRAWS = 12

#: Anything called like the built-in ``map``; the function and the items can be pickled.
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def in_sample_curve(
    table: FeatureTable,
    ranking: IntArray | Sequence[int],
    ks: Iterable[int],
    draws: int = DRAWS,
    seed: int | Sequence[int] = 0,
    map: Map = map,
    *,
    penalizer: float = 0.01,
) -> list[dict[str, float]]:
    """In-sample concordance of the Cox model on the first k features, and on k features drawn at random.

    Of classes it is the area under the ROC curve of the logistic model.

    In each draw the columns that vary are shuffled, and the first k of them taken for every k: what is said of one k
    is said of k features drawn without replacement. Missing values become the column's median.

    Parameters
    ----------
    table
        The cases.
    ranking
        Columns, best first; constant ones are passed over.
    ks
        Numbers of features; those beyond the columns that there are, are left out.
    draws
        How often random features are drawn.
    seed
        Of the draws.
    map
        Runs the curves, one per task; called like the built-in one.
    penalizer
        The squared penalty of the model.

    Returns
    -------
    list of dict
        ``k, c_index_in_sample, random_median, random_lower, random_upper, of`` per k: the draws' range, and how many
        features they are drawn from. Of classes the second is ``auc_in_sample``. NaN where the model has no maximum, as
        may be without a penalty.

    Raises
    ------
    StatisticsError
        Without an event, or when no column varies.
    """
    X = _complete(table.X)
    columns = varying(X)
    endpoint = table.endpoint
    if isinstance(endpoint, Survival) and not endpoint.event.any():
        raise StatisticsError(f"{len(X)} cases without events: there is no curve to draw")
    if not len(columns):
        raise StatisticsError(f"none of {X.shape[1]} features varies among {len(X)} cases: there is no curve to draw")
    first = np.asarray(ranking, dtype=np.int64)
    first = first[np.isin(first, columns)]
    wanted = [k for k in ks if 1 <= k <= len(first)]
    rng = np.random.default_rng(seed)
    orders = [first, *(rng.permutation(columns)[: max(wanted, default=0)] for _ in range(draws))]
    fit = partial(_curve, X, endpoint, wanted, penalizer)
    ranked, *random = map(fit, orders)
    name = "c_index_in_sample" if isinstance(endpoint, Survival) else "auc_in_sample"
    return [
        {"k": k, name: ranked[i], **_range([draw[i] for draw in random]), "of": len(columns)}
        for i, k in enumerate(wanted)
    ]


def _range(draws: Sequence[float]) -> dict[str, float]:
    """Median and range of the draws that gave a model; NaN where none did."""
    held = [value for value in draws if math.isfinite(value)] or [math.nan]
    return {"random_median": float(np.median(held)), "random_lower": min(held), "random_upper": max(held)}


def compare_curves(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Wilcoxon's signed rank test between two in-sample curves, paired by k, as the study compares feature sets.

    The points of a curve share their cases and most of their features: they are no independent observations, and the p
    is far too small (two sets of random features differ by it as well). What respects that, is the comparison of
    held-out folds.

    Parameters
    ----------
    first, second
        Rows of :func:`in_sample_curve`.

    Returns
    -------
    dict
        ``n`` (k in both), ``median_difference`` (first less second), ``statistic``, ``p``.

    Raises
    ------
    StatisticsError
        When no k is in both.
    """
    from scipy.stats import wilcoxon

    at = {row["k"]: row["c_index_in_sample"] for row in second}
    difference = np.array([row["c_index_in_sample"] - at[row["k"]] for row in first if row["k"] in at])
    difference = difference[np.isfinite(difference)]
    if not len(difference):
        raise StatisticsError("the curves have no number of features in common")
    moved = difference.any()
    statistic, p = wilcoxon(difference) if moved else (0.0, 1.0)
    return {
        "n": len(difference),
        "median_difference": float(np.median(difference)),
        "statistic": float(statistic),
        "p": float(p),
    }


def _curve(X: FloatArray, endpoint: Endpoint, ks: Sequence[int], penalizer: float, order: IntArray) -> list[float]:
    """NaN where there is no model: without a penalty, so many features may order the events perfectly."""
    curve = []
    for k in ks:
        try:
            curve.append(_figure(X[:, order[:k]], endpoint, penalizer))
        except StatisticsError:
            curve.append(float("nan"))
    return curve


def _figure(X: FloatArray, endpoint: Endpoint, penalizer: float) -> float:
    """The figure of the model of all columns, on the cases that it was fitted on."""
    if isinstance(endpoint, Survival):
        return cox_curve(X, endpoint.time_days, endpoint.event, [X.shape[1]], penalizer=penalizer)[0]
    Z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    (model,) = fit_logistic(Z, endpoint, [penalizer], 0.0, [0])
    probability = model.predict(Z).probability
    assert probability is not None
    return class_auc(endpoint.label, probability)


def _complete(X: FloatArray) -> FloatArray:
    """With missing values filled by their column's median; columns without any value become zero."""
    missing = ~np.isfinite(X)
    if not missing.any():
        return X
    filled = X.copy()
    for column in np.flatnonzero(missing.any(axis=0)):
        held = X[~missing[:, column], column]
        filled[missing[:, column], column] = np.median(held) if len(held) else 0.0
    return filled
