"""Sums whose order is fixed: a case's score must not depend on the cases beside it.

A matrix product of a linear algebra library adds in another order for 20 rows than for one, and for the first rows
than for the last ones, as the processor's vectors are filled; so the last bits of one patient's score would differ
between a cohort and that patient alone, two equal patients would not be tied, and who lies on a cut-off would change
the group. Here everything is elementwise: halves are added, then halves of that, the same for each row.
For the same reason linear algebra runs on one thread: the last digits depend on how many a machine has.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import numpy as np

from prognosis_dask.arrays import FloatArray

#: Numbers that are held at a time.
_NUMBERS = 4_000_000


def row_sums(values: FloatArray) -> FloatArray:
    """Sum of each row, shape (cases,); it depends on the row's numbers and on nothing else.

    >>> row_sums(np.array([[1.0, 2.0, 4.0], [0.5, 0.25, 0.0]])).tolist()
    [7.0, 0.75]
    """
    if not values.shape[1]:
        return np.zeros(len(values))
    while values.shape[1] > 1:
        half = (values.shape[1] + 1) // 2
        folded = values[:, :half].copy()
        folded[:, : values.shape[1] - half] += values[:, half:]
        values = folded
    return np.asarray(values[:, 0].copy())


def linear_score(Z: FloatArray, coefficient: FloatArray) -> FloatArray:
    """``Z @ coefficient`` in a fixed order of summation.

    Parameters
    ----------
    Z
        Shape (cases, features).
    coefficient
        Shape (features,) or (features, scores).

    Returns
    -------
    FloatArray
        Shape (cases,) or (cases, scores).
    """
    if coefficient.ndim == 2:
        if not coefficient.size:
            return np.zeros((len(Z), coefficient.shape[1]))
        return np.column_stack([linear_score(Z, column) for column in coefficient.T])
    step = max(1, _NUMBERS // max(1, Z.shape[1]))
    parts = [row_sums(Z[start : start + step] * coefficient) for start in range(0, len(Z), step)]
    return np.concatenate(parts) if parts else np.zeros(0)


def one_thread() -> AbstractContextManager[Any]:
    """A context in which NumPy's and SciPy's linear algebra uses one thread."""
    limited: AbstractContextManager[Any] = _controller().limit(limits=1)
    return limited


@lru_cache(maxsize=1)
def _controller() -> Any:
    """Finding the libraries takes longer than a small fit: once per process, when all of them are loaded."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
