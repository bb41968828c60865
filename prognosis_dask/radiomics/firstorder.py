"""pyradiomics' first-order features of finite values, with each intermediate result computed once.

The formulas and their order of additions are those of ``radiomics.firstorder`` and of the functions of NumPy that it
calls, without their search for missing values. Non-finite values are left to pyradiomics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from radiomics.firstorder import RadiomicsFirstOrder

from prognosis_dask.arrays import FloatArray


def _init_calculation(self: Any, voxels: None = None) -> None:
    """Results shared by the features; shapes are (1, n), as in pyradiomics."""
    self.targetVoxelArray = values = self.values.astype("float").reshape((1, -1))
    counts = np.bincount(self.imageArray.levels)
    counts = counts[counts > 0].reshape((1, -1))
    self.coefficients["p_i"] = counts.astype("float") / np.sum(counts, 1, keepdims=True).astype("float")
    self.finite = bool(np.isfinite(values).all())
    if not self.finite:
        return
    size = values.shape[1]
    shifted = values + self.voxelArrayShift
    self.energy = np.add.reduce(shifted**2, 1)
    self.mean = np.add.reduce(values, 1, keepdims=True) / size
    self.deviations = values - self.mean
    self.variance = np.add.reduce(self.deviations * self.deviations, 1) / size
    self.moments = {}
    self.percentiles = dict(zip((10, 25, 75, 90), np.percentile(values[0], (10, 25, 75, 90))[:, None], strict=True))


def _moment(self: Any, order: int) -> FloatArray:
    if order not in self.moments:
        self.moments[order] = np.add.reduce(_powers(self, order), 1) / self.deviations.shape[1]
    moment: FloatArray = self.moments[order].copy()
    return moment


def _powers(self: Any, order: int) -> FloatArray:
    """Powers of the deviations; integers in a short range are raised once per value.

    Uses ``power``, which may round a square differently from a product.
    """
    values = self.values
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if high - low < len(values):
            raised = np.power(np.arange(low, high + 1, dtype="float")[None] - self.mean, order)
            powers: FloatArray = raised[:, values.astype(np.int64) - low]
            return powers
    return np.asarray(np.power(self.deviations, order))


def _skewness(self: Any) -> Any:
    m2, m3 = _moment(self, 2), _moment(self, 3)
    m2[m2 == 0] = 1
    return m3 / m2**1.5


def _kurtosis(self: Any) -> Any:
    m2, m4 = _moment(self, 2), _moment(self, 4)
    m2[m2 == 0] = 1
    return m4 / m2**2.0


def _robust_deviation(self: Any) -> Any:
    values, low, high = self.targetVoxelArray, self.percentiles[10], self.percentiles[90]
    inside = ~((values - low[:, None] < 0) | (values - high[:, None] > 0))
    count = np.sum(inside, 1, keepdims=True)
    # outside values count as zero in their place, as in NumPy
    mean = np.add.reduce(np.where(inside, values, 0), 1, keepdims=True) / count
    return np.add.reduce(np.where(inside, np.absolute(values - mean), 0), 1) / count[:, 0]


def _root_mean_squared(self: Any) -> Any:
    return np.sqrt(self.energy / float(self.targetVoxelArray.shape[1]))


_FORMULAS: dict[str, Callable[[Any], Any]] = {
    "Energy": lambda self: self.energy,
    "TotalEnergy": lambda self: self.energy * np.multiply.reduce(self.pixelSpacing),
    "Minimum": lambda self: np.min(self.targetVoxelArray, 1),
    "Maximum": lambda self: np.max(self.targetVoxelArray, 1),
    "Range": lambda self: np.max(self.targetVoxelArray, 1) - np.min(self.targetVoxelArray, 1),
    "10Percentile": lambda self: self.percentiles[10],
    "90Percentile": lambda self: self.percentiles[90],
    "InterquartileRange": lambda self: self.percentiles[75] - self.percentiles[25],
    "Mean": lambda self: self.mean[:, 0],
    "MeanAbsoluteDeviation": lambda self: (
        np.add.reduce(np.absolute(self.deviations), 1) / self.targetVoxelArray.shape[1]
    ),
    "RobustMeanAbsoluteDeviation": _robust_deviation,
    "RootMeanSquared": _root_mean_squared,
    "Skewness": _skewness,
    "Kurtosis": _kurtosis,
    "Variance": lambda self: np.sqrt(self.variance) ** 2,
}


def _finite_or_not(name: str, formula: Callable[[Any], Any]) -> Callable[[Any], Any]:
    theirs = getattr(RadiomicsFirstOrder, name)

    def value(self: Any) -> Any:
        return formula(self) if self.finite else theirs(self)

    return value


#: Replaced methods of pyradiomics' class.
FIRST_ORDER: dict[str, Callable[..., Any]] = {
    "_initCalculation": _init_calculation,
    **{
        name: _finite_or_not(name, formula)
        for name, formula in ((f"get{feature}FeatureValue", formula) for feature, formula in _FORMULAS.items())
    },
}
