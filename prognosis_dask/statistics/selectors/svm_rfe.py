"""Recursive feature elimination with support vector machines, linear and with radial kernel."""

from __future__ import annotations

from prognosis_dask.statistics.endpoint import Endpoint, FloatArray, IntArray
from prognosis_dask.statistics.selection import rank_features, rank_features_rbf
from prognosis_dask.statistics.selectors.labels import labelled


def rank_svm_rfe(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """See :func:`prognosis_dask.statistics.selection.rank_features`; of survival, on "alive after label_days"."""
    known, classes = labelled(Z, endpoint, label_days)
    return rank_features(known, classes.label)


def rank_svm_rfe_rbf(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """See :func:`prognosis_dask.statistics.selection.rank_features_rbf`, a tenth of the features at a time."""
    known, classes = labelled(Z, endpoint, label_days)
    return rank_features_rbf(known, classes.label, share=0.1)
