"""One feature at a time: Cox's score test with control of false discoveries, and the analysis of variance."""

from __future__ import annotations

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.cox import PartialLikelihood
from prognosis_dask.statistics.endpoint import Classes, Endpoint, FloatArray, IntArray, Survival

#: Expected share of false discoveries among the features that Cox's score test keeps.
FALSE_DISCOVERY_RATE = 0.05


def rank_score_test(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by the p-value of Cox's score test; keep those with a false discovery rate of at most 5 %.

    Where none passes, the best alone is kept: the held-out figures tell what it is worth.
    """
    assert isinstance(endpoint, Survival)
    p = score_test(Z, endpoint)
    kept = max(1, int((false_discovery(p) <= FALSE_DISCOVERY_RATE).sum()))
    return np.argsort(p, kind="stable")[:kept]


def score_test(Z: FloatArray, endpoint: Survival) -> FloatArray:
    """P-value per column of the univariate Cox model's score test (Efron's ties); shape (features,).

    Without ties and for two groups this is the log-rank test.

    Raises
    ------
    StatisticsError
        When there is no event.
    """
    from scipy.stats import chi2

    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    order = np.argsort(endpoint.time_days, kind="stable")
    likelihood = PartialLikelihood(Z[order], endpoint.time_days[order], endpoint.event[order], 0.0)
    gradient, information = likelihood.score(np.arange(Z.shape[1]))
    statistic = np.divide(gradient**2, information, out=np.zeros(Z.shape[1]), where=information > 0)
    return np.asarray(chi2.sf(statistic, 1))


def false_discovery(p: FloatArray) -> FloatArray:
    """Benjamini & Hochberg's adjusted p-values (Journal of the Royal Statistical Society B 57, 289, 1995).

    >>> false_discovery(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    raised = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted[order] = np.minimum.accumulate(raised[::-1])[::-1]
    return adjusted


def rank_anova(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by the F statistic of the one-way analysis of variance over the classes."""
    from sklearn.feature_selection import f_classif

    assert isinstance(endpoint, Classes)
    return np.argsort(-f_classif(Z, endpoint.label)[0], kind="stable")
