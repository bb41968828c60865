"""Selectors that fit no model of all features: each feature alone, or with those taken before it.

Mutual information, minimum redundancy and maximum relevance, Cox's score test with control of false discoveries, and
the analysis of variance.
"""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.estimators.baseline import breslow
from prognosis_dask.modelling.estimators.partial_likelihood import likelihood_of

#: A redundancy below this is chance.
_LEAST_REDUNDANCY = 1e-3
#: Expected share of false discoveries among the features that Cox's score test keeps.
FALSE_DISCOVERY_RATE = 0.05


def rank_mutual_information(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by Ross's nearest-neighbour estimate (PLoS ONE 9, e87357, 2014), of scikit-learn."""
    from sklearn.feature_selection import mutual_info_classif

    assert isinstance(endpoint, Classes)
    start = int(np.random.default_rng(seed).integers(2**31))
    return np.argsort(-mutual_info_classif(Z, endpoint.label, random_state=start, n_jobs=1), kind="stable")


def rank_mrmr(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank greedily by relevance over mean redundancy with those taken before (Ding & Peng, JBCB 3, 185, 2005).

    Redundancy is the absolute correlation. Relevance is the absolute correlation with the null model's martingale
    residuals (survival), or the square root of the variance's share that the classes explain.
    """
    relevance = _relevance(Z, endpoint)
    cases = len(Z)
    unit = (Z - Z.mean(axis=0)) / np.sqrt(cases * Z.var(axis=0))
    left = np.ones(Z.shape[1], dtype=bool)
    redundancy = np.zeros(Z.shape[1])
    ranking: list[int] = []
    for taken in range(Z.shape[1]):
        score = relevance / np.maximum(redundancy / taken, _LEAST_REDUNDANCY) if taken else relevance
        best = int(np.where(left, score, -np.inf).argmax())
        ranking.append(best)
        left[best] = False
        redundancy += np.abs(unit.T @ unit[:, best])
    return np.array(ranking, dtype=np.int64)


def _relevance(Z: FloatArray, endpoint: Endpoint) -> FloatArray:
    spread = Z.std(axis=0)
    if isinstance(endpoint, Survival):
        residual = martingale_residuals(endpoint)
        if not residual.std():
            return np.zeros(Z.shape[1])
        return np.asarray(np.abs(((Z - Z.mean(axis=0)).T @ residual) / (len(Z) * spread * residual.std())))
    assert isinstance(endpoint, Classes)
    indicator = (endpoint.label[:, None] == np.arange(len(endpoint.names))).astype(float)
    size = np.maximum(indicator.sum(axis=0), 1.0)
    means = indicator.T @ Z / size[:, None]
    return np.asarray(np.sqrt(size @ (means - Z.mean(axis=0)) ** 2 / len(Z)) / spread)


def martingale_residuals(endpoint: Survival) -> FloatArray:
    """Event less the Nelson-Aalen cumulative hazard while the case was followed; shape (cases,)."""
    nelson_aalen = breslow(endpoint, np.zeros(len(endpoint)))
    hazard = np.append(0.0, nelson_aalen.cumulative)

    def until(days: FloatArray) -> FloatArray:
        return hazard[np.searchsorted(nelson_aalen.times_days, days, side="right")]

    before = 0.0 if endpoint.entry_days is None else until(endpoint.entry_days)
    return np.asarray(endpoint.event - (until(endpoint.time_days) - before))


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
    gradient, information = likelihood_of(Z, endpoint).score(np.arange(Z.shape[1]))
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
