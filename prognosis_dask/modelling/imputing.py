"""Multiple imputation by chained equations: each incomplete column from the others, with what is uncertain drawn.

Van Buuren, Flexible Imputation of Missing Data (2nd ed., 2018), algorithm 4.3, every column by Bayesian linear
regression (algorithm 3.1, R's ``mice(method = "norm")``). The endpoint takes no part: of a new patient it is not known,
and a model has to meet the patients that it learns from as it will meet others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.modelling.estimators.scores import linear_score

#: Rounds over the incomplete columns, in drawing and in completing a case.
_ROUNDS = 20
#: Known values of a column for each other column that it is regressed on.
_EACH = 10
#: What is added to the predictors' sums of squares, as a share of them (mice's own).
_RIDGE = 1e-5
#: A standardised column that varies less among the known cases says nothing of them.
_FLAT = 1e-6
#: Sets these random numbers apart from others of the same seed.
_STREAM = 4127


@dataclass(frozen=True, eq=False)
class Imputation:
    """What a missing value is expected to be, given the other columns.

    Attributes
    ----------
    columns
        Positions of the columns that lacked values among the training cases.
    intercept, coefficient
        Their regressions, the mean of all imputations: shape (columns,) and (columns, all columns).
    least, most
        What the training cases had of them, at which expected values are bounded: regressions of few cases, from each
        other's expected values, may drive one another apart without end. Shape (columns,).
    """

    columns: IntArray
    intercept: FloatArray
    coefficient: FloatArray
    least: FloatArray
    most: FloatArray

    def complete(self, X: FloatArray, median: FloatArray) -> FloatArray:
        """The cases with their expected values; a case is completed from itself alone.

        Parameters
        ----------
        X
            Shape (cases, all columns), NaN where a value is missing.
        median
            Where the rounds begin, and what columns get that lacked no value among the training cases.
        """
        missing = np.isnan(X)
        X = np.where(missing, median, X)
        lacking = [(i, at, np.flatnonzero(missing[:, at])) for i, at in enumerate(self.columns.tolist())]
        lacking = [(i, at, rows) for i, at, rows in lacking if len(rows)]
        for _ in range(_ROUNDS if len(lacking) > 1 else len(lacking)):
            for i, at, rows in lacking:
                expected = self.intercept[i] + linear_score(X[rows], self.coefficient[i])
                X[rows, at] = expected.clip(self.least[i], self.most[i])
        return np.asarray(X)


def impute(X: FloatArray, imputations: int, seed: list[int]) -> tuple[Imputation, list[FloatArray]]:
    """Draw the missing values of the training cases.

    A column is regressed on the others, of which no more take part than a tenth of its known values: those that
    correlate most with it. Columns without any value are left as they are.

    Parameters
    ----------
    X
        Shape (cases, columns), NaN where a value is missing.
    imputations
        How many completed tables are drawn.
    seed
        Of the draws.

    Returns
    -------
    imputation
        How new cases are completed.
    completed
        The drawn tables, each of X's shape.
    """
    known = ~np.isnan(X)
    usable = known.sum(axis=0) > 1
    mean, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    mean[usable], scale[usable] = np.nanmean(X[:, usable], axis=0), np.nanstd(X[:, usable], axis=0)
    varying = usable & (scale > 0)
    scale[~varying] = 1.0
    Z = (X - mean) / scale
    columns = np.flatnonzero(varying & ~known.all(axis=0))
    predictors = [_predictors(Z, known, varying, int(at)) for at in columns]
    intercept, coefficient = np.zeros(len(columns)), np.zeros((len(columns), X.shape[1]))
    completed = []
    for number in range(imputations):
        rng = np.random.default_rng([*seed, _STREAM, number])
        filled = _begun(Z, known, columns, rng)
        fits = [np.zeros(0)] * len(columns)
        for _ in range(_ROUNDS):
            for i, at in enumerate(columns.tolist()):
                fits[i] = _redraw(filled, known[:, at], at, predictors[i], rng)
        for i, (at, fit) in enumerate(zip(columns.tolist(), fits, strict=True)):
            slope = fit[1:] * scale[at] / scale[predictors[i]]
            coefficient[i, predictors[i]] += slope / imputations
            intercept[i] += (mean[at] + fit[0] * scale[at] - slope @ mean[predictors[i]]) / imputations
        table = X.copy()
        table[:, columns] = np.where(
            known[:, columns], X[:, columns], filled[:, columns] * scale[columns] + mean[columns]
        )
        completed.append(table)
    least, most = (of(X[:, columns], axis=0) for of in (np.nanmin, np.nanmax))
    return Imputation(columns, intercept, coefficient, least, most), completed


def _predictors(Z: FloatArray, known: BoolArray, varying: BoolArray, at: int) -> IntArray:
    """The columns that a column is regressed on: those whose correlation with it is the greatest."""
    rows = known[:, at]
    others = np.where(known[rows], Z[rows], 0.0)
    others = others - others.mean(axis=0)
    spread = np.sqrt((others**2).mean(axis=0))
    strength = np.abs(others.T @ Z[rows, at]) / np.maximum(spread, _FLAT)
    strength[~varying | (spread < _FLAT)] = -1.0  # such as whether this column is missing
    strength[at] = -1.0
    most = min(max(1, int(rows.sum()) // _EACH), int((strength >= 0).sum()))
    return np.sort(np.argsort(-strength, kind="stable")[:most])


def _begun(Z: FloatArray, known: BoolArray, columns: IntArray, rng: np.random.Generator) -> FloatArray:
    """Every gap filled with a value of its column, at random."""
    filled = np.where(known, Z, 0.0)
    for at in columns.tolist():
        gaps = ~known[:, at]
        filled[gaps, at] = rng.choice(Z[known[:, at], at], int(gaps.sum()))
    return filled


def _redraw(
    filled: FloatArray, known: BoolArray, at: int, predictors: IntArray, rng: np.random.Generator
) -> FloatArray:
    """Draw a column's missing values anew, in place; the regression's intercept and coefficients."""
    A = np.column_stack([np.ones(len(filled)), filled[:, predictors]])
    B, y = A[known], filled[known, at]
    squares = B.T @ B
    inverse = np.linalg.inv(squares + _RIDGE * np.diag(np.diag(squares)))
    fit = inverse @ (B.T @ y)
    left = y - B @ fit
    spread = np.sqrt(float(left @ left) / rng.chisquare(max(1, len(y) - len(fit))))
    drawn = fit + spread * np.linalg.cholesky(inverse) @ rng.normal(size=len(fit))
    filled[~known, at] = A[~known] @ drawn + spread * rng.normal(size=int((~known).sum()))
    return np.asarray(fit)
