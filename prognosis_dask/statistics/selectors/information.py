"""Mutual information of each feature with the class."""

from __future__ import annotations

import numpy as np

from prognosis_dask.statistics.endpoint import Classes, Endpoint, FloatArray, IntArray


def rank_mutual_information(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by Ross's nearest-neighbour estimate (PLoS ONE 9, e87357, 2014), of scikit-learn."""
    from sklearn.feature_selection import mutual_info_classif

    assert isinstance(endpoint, Classes)
    start = int(np.random.default_rng(seed).integers(2**31))
    return np.argsort(-mutual_info_classif(Z, endpoint.label, random_state=start, n_jobs=1), kind="stable")
