"""Stability selection: the features that a lasso takes again and again from halves of the cases."""

from __future__ import annotations

import numpy as np

from prognosis_dask.statistics.endpoint import Endpoint, FloatArray, IntArray, Survival
from prognosis_dask.statistics.selectors.penalised import cox_entries, logistic_entries

#: Pairs of halves, the share of halves that has to take a feature, and the false selections that are expected at most.
PAIRS, THRESHOLD, FALSE_SELECTIONS = 25, 0.6, 1.0


def rank_stability(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by the share of halves that take the feature; keep those above the threshold.

    Complementary pairs (Shah & Samworth, JRSS B 75, 55, 2013). From each half a lasso takes so many features that at
    most one false selection is expected at the threshold (Meinshausen & Bühlmann, JRSS B 72, 417, 2010, theorem 1).
    Where none is stable, the most frequent alone is kept.
    """
    share = selection_share(Z, endpoint, seed)
    kept = max(1, int((share >= THRESHOLD).sum()))
    return np.argsort(-share, kind="stable")[:kept]


def selection_share(Z: FloatArray, endpoint: Endpoint, seed: list[int]) -> FloatArray:
    """The share of halves that take each feature, shape (features,)."""
    take = max(1, round(np.sqrt((2 * THRESHOLD - 1) * Z.shape[1] * FALSE_SELECTIONS)))
    rng = np.random.default_rng(seed)
    count = np.zeros(Z.shape[1])
    for _ in range(PAIRS):
        for half in _halves(endpoint, rng):
            part = endpoint.rows(half)
            if isinstance(part, Survival):
                chosen = cox_entries(Z[half], part, take)
            else:
                chosen = logistic_entries(Z[half], part, take)
            count[chosen[:take]] += 1
    return count / (2 * PAIRS)


def _halves(endpoint: Endpoint, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Two halves, each with its share of every stratum of the endpoint."""
    shuffled = rng.permutation(len(endpoint))
    dealt = shuffled[np.argsort(endpoint.strata()[shuffled], kind="stable")]
    return np.sort(dealt[::2]), np.sort(dealt[1::2])
