"""Linear models of many features with a random intercept of each patient, by restricted maximum likelihood.

The likelihood is profiled over one number of each feature, the ratio of the variance between patients to that within
them. All that it needs of the cases are sums over patients, which are taken once; so all features are fitted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError

#: Ratios among which the least of the criterion is looked for before its root is found.
_RATIOS = np.concatenate([[0.0], np.geomspace(1e-4, 1e8, 97)])
#: Halvings of a bracket, down to a number's last bits.
_HALVINGS = 60
#: Below this share of a feature's magnitude its scans of a patient differ by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Intercepts:
    """The models of every feature.

    Attributes
    ----------
    solution
        The design's coefficients, shape (columns, features).
    residual
        Standard deviation within patients, shape (features,); 0 where no patient's scans differ.
    share
        The share of one case's distance from the fixed part that is expected to be its patient's, shape (features,).
    of_case
        What is predicted of each case's patient by all of his cases, shape (cases, features).
    """

    solution: FloatArray
    residual: FloatArray
    share: FloatArray
    of_case: FloatArray


def fit_intercepts(X: FloatArray, design: FloatArray, patients: Sequence[str]) -> Intercepts:
    """Fit ``X`` by ``design`` and an intercept of each patient.

    Raises
    ------
    StatisticsError
        When no patient has two cases, or there are no more cases than columns in the design.
    """
    _, of, scans = np.unique(np.asarray(patients, dtype=str), return_inverse=True, return_counts=True)
    if scans.max() < 2:
        raise StatisticsError(
            f"longitudinal ComBat learns from patients with several scans, and of the {len(scans)} training patients "
            "of this fold or model none has two scans that differ: take harmonise = 'combat'"
        )
    if len(X) <= design.shape[1]:
        raise StatisticsError(
            f"longitudinal ComBat learns from {len(X)} cases, expected more than the {design.shape[1]} sites and "
            "covariates: give small sites one name, or take harmonise = 'combat'"
        )
    unit = X.std(axis=0)
    Y = X / np.where(unit > 0, unit, 1.0)
    profile = _Profile.of(Y, design, of, scans)
    ratio = profile.best_ratio()
    solution, squares = profile.solve(ratio)
    share = ratio / (1.0 + scans[:, None] * ratio)
    distance = _by_patient(Y - design @ solution, of, len(scans))
    residual = np.sqrt(squares / (len(X) - design.shape[1])) * unit
    apart = np.abs(X - (_by_patient(X, of, len(scans)) / scans[:, None])[of]).max(axis=0)
    residual[apart <= _ROUNDING * np.abs(X).max(axis=0)] = 0.0
    return Intercepts(solution * unit, residual, ratio / (1.0 + ratio), (share * distance)[of] * unit)


def _by_patient(values: FloatArray, of: IntArray, patients: int) -> FloatArray:
    """Sums over each patient's cases."""
    sums = np.zeros((patients, values.shape[1]))
    np.add.at(sums, of, values)
    return sums


@dataclass(frozen=True)
class _Profile:
    """Sums over the cases, and over the patients with each number of cases (first axis of ``sides`` to ``squares``)."""

    cases: int
    scans: FloatArray
    patients: FloatArray
    XX: FloatArray
    Xy: FloatArray
    yy: FloatArray
    sides: FloatArray
    cross: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, Y: FloatArray, design: FloatArray, of: IntArray, scans: IntArray) -> _Profile:
        sums, sides = _by_patient(Y, of, len(scans)), _by_patient(design, of, len(scans))
        sizes, patients = np.unique(scans, return_counts=True)
        groups = [np.flatnonzero(scans == size) for size in sizes]
        return cls(
            len(Y),
            sizes[:, None].astype(float),
            patients[:, None].astype(float),
            design.T @ design,
            design.T @ Y,
            (Y**2).sum(axis=0),
            np.array([sides[rows].T @ sides[rows] for rows in groups]),
            np.array([sides[rows].T @ sums[rows] for rows in groups]),
            np.array([(sums[rows] ** 2).sum(axis=0) for rows in groups]),
        )

    def solve(self, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coefficients at a ratio of each feature, and the weighted sum of squares that they leave."""
        _, solution, squares = self._solve(ratio)
        return solution, squares

    def best_ratio(self) -> FloatArray:
        """The ratio of the greatest restricted likelihood of each feature."""
        features = len(self.yy)
        least = np.argmin([self._criterion(np.full(features, ratio)) for ratio in _RATIOS], axis=0)
        low = _RATIOS[np.maximum(least - 1, 0)]
        high = _RATIOS[np.minimum(least + 1, len(_RATIOS) - 1)]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            falls = self._slope(middle) < 0
            low, high = np.where(falls, middle, low), np.where(falls, high, middle)
        return np.where((least == 0) & (self._slope(np.zeros(features)) >= 0), 0.0, (low + high) / 2)

    def _solve(self, ratio: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        weight = ratio / (1.0 + self.scans * ratio)
        A = self.XX - np.einsum("gf,gij->fij", weight, self.sides)
        b = self.Xy - np.einsum("gf,gif->if", weight, self.cross)
        solution = np.linalg.solve(A, b.T[:, :, None])[:, :, 0].T
        squares = self.yy - (weight * self.squares).sum(axis=0) - (b * solution).sum(axis=0)
        return A, solution, np.maximum(squares, np.finfo(float).tiny)

    def _criterion(self, ratio: FloatArray) -> FloatArray:
        """Minus twice the restricted log likelihood, but for a constant."""
        A, solution, squares = self._solve(ratio)
        spread = (self.patients * np.log1p(self.scans * ratio)).sum(axis=0)
        return np.asarray((self.cases - len(solution)) * np.log(squares) + np.linalg.slogdet(A)[1] + spread)

    def _slope(self, ratio: FloatArray) -> FloatArray:
        """The criterion's derivative by the ratio."""
        A, solution, squares = self._solve(ratio)
        change = (1.0 + self.scans * ratio) ** -2
        dA = -np.einsum("gf,gij->fij", change, self.sides)
        db = -np.einsum("gf,gif->if", change, self.cross)
        moved = np.einsum("if,fij,jf->f", solution, dA, solution) - 2 * (db * solution).sum(axis=0)
        moved = moved - (change * self.squares).sum(axis=0)
        turned = np.trace(np.linalg.solve(A, dA), axis1=1, axis2=2)
        spread = (self.patients * self.scans / (1.0 + self.scans * ratio)).sum(axis=0)
        return np.asarray((self.cases - len(solution)) * moved / squares + turned + spread)
