"""Minimum redundancy, maximum relevance."""

from __future__ import annotations

import numpy as np

from prognosis_dask.statistics.endpoint import Classes, Endpoint, FloatArray, IntArray, Survival

#: A redundancy below this is chance.
_LEAST_REDUNDANCY = 1e-3


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
    """Event less the Nelson-Aalen cumulative hazard at the end of follow-up; shape (cases,)."""
    times, events = np.unique(endpoint.time_days[endpoint.event], return_counts=True)
    at_risk = (endpoint.time_days[:, None] >= times).sum(axis=0)
    hazard = np.append(0.0, np.cumsum(events / at_risk))
    return np.asarray(endpoint.event - hazard[np.searchsorted(times, endpoint.time_days, side="right")])
