"""Bootstrap intervals that draw patients: all cases of a patient are drawn together, the fitted models are kept.

They show how uncertain a figure is given the number of patients tested, not what another training would have given. The
interval of a validated figure, such as the C-index's ``lower`` and ``upper``, counts both:
:mod:`prognosis_dask.modelling.validation.halves`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from prognosis_dask.arrays import FloatArray

#: What the bounds are, in words.
INTERVAL = "95 % percentile bootstrap over patients, the fitted models kept"
#: The standard normal distribution's 97.5th percentile: half the width of a 95 % interval, in standard errors.
Z95 = 1.959963984540054
#: How often the patients are drawn.
DRAWS = 1000
#: Numbers that an array of some draws holds.
_NUMBERS = 100_000
#: Fewer draws with a value than this share give no interval.
_FEWEST = 0.5


def draw_patients(patient_ids: Sequence[str], rng: np.random.Generator, draws: int = DRAWS) -> FloatArray:
    """How often each case is drawn, shape (draws, cases): as many patients as there are, with replacement.

    >>> drawn = draw_patients(["a", "a", "b"], np.random.default_rng(0), draws=3)
    >>> (drawn[:, 0] + drawn[:, 2]).tolist(), (drawn[:, 0] == drawn[:, 1]).tolist()
    ([2.0, 2.0, 2.0], [True, True, True])
    """
    patients, patient = np.unique(patient_ids, return_inverse=True)
    counts = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=draws)
    return counts[:, patient].astype(np.float64)


def interval(values: FloatArray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the draws' values.

    Draws without a value (NaN: no comparable pair, a class that was not drawn) are left out; NaN where they are more
    than half.
    """
    held = values[np.isfinite(values)]
    if not len(held) or len(held) < _FEWEST * len(values):
        return float("nan"), float("nan")
    lower, upper = np.percentile(held, [2.5, 97.5])
    return float(lower), float(upper)


def mean_held(values: FloatArray) -> FloatArray:
    """Mean over the first axis (the folds), without NaN; NaN where nothing is left.

    >>> mean_held(np.array([[1.0, np.nan], [3.0, np.nan]]))
    array([ 2., nan])
    """
    held = np.isfinite(values)
    mean = np.full(values.shape[1:], np.nan)
    np.divide(np.where(held, values, 0.0).sum(axis=0), held.sum(axis=0), out=mean, where=held.any(axis=0))
    return mean


def in_parts(draws: int, cases: int) -> Iterator[slice]:
    """The draws in slices.

    >>> [(part.start, part.stop) for part in in_parts(5, 50_000)]
    [(0, 2), (2, 4), (4, 5)]
    """
    size = max(1, _NUMBERS // max(1, cases))
    for start in range(0, draws, size):
        yield slice(start, min(start + size, draws))
