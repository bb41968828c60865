"""ComBat: take out of the features what scanner or site put in, by empirical Bayes.

Johnson, Li & Rabinovic, Biostatistics 8, 118 (2007); for images Fortin et al., NeuroImage 161, 149 (2017). What is
learned from the training cases is applied to any case of a site that was among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.estimators.scores import linear_score

#: A spread below this share of the feature's magnitude is rounding.
_ROUNDING = 1e-12
#: The posterior's fixed point has been reached when a step changes it by less, in units of the pooled deviation.
_SETTLED = 1e-12
_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Combat:
    """Location and scale of every feature at every site, as learned.

    Attributes
    ----------
    sites
        Whose cases it was learned from.
    mean, scale
        Overall mean and pooled within-site standard deviation of each feature, shape (features,); of a reference site,
        where there is one, its own.
    shift, spread
        Posterior location (in units of ``scale``) and variance (in units of its square), shape (sites, features).
    slope
        Change of the mean with each covariate, shape (covariates, features).
    centre
        The covariates' means, shape (covariates,).
    """

    sites: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    shift: FloatArray
    spread: FloatArray
    slope: FloatArray
    centre: FloatArray

    def apply(self, X: FloatArray, site: Sequence[str], covariates: FloatArray | None = None) -> FloatArray:
        """The harmonised features; what the covariates explain is kept.

        Parameters
        ----------
        X
            Shape (cases, features), the columns of the fit.
        site
            Shape (cases,).
        covariates
            Shape (cases, covariates), those of the fit.

        Raises
        ------
        StatisticsError
            When a site was not among those learned from, or the columns are not those of the fit.
        """
        at = self._positions(site)
        columns = len(self.mean)
        if X.shape != (len(site), columns):
            raise StatisticsError(f"ComBat was fitted on {columns} features; {X.shape} values for {len(site)} cases")
        apart = _design(covariates, len(site), len(self.centre)) - self.centre
        expected = self.mean + linear_score(apart, self.slope)
        Z = (X - expected) / self.scale
        harmonised: FloatArray = expected + self.scale * (Z - self.shift[at]) / np.sqrt(self.spread[at])
        return harmonised

    def _positions(self, site: Sequence[str]) -> IntArray:
        unseen = sorted(set(site) - set(self.sites))
        if unseen:
            raise StatisticsError(
                f"ComBat has not seen the site {', '.join(map(repr, unseen))}, it was fitted on "
                f"{', '.join(map(repr, self.sites))}: fit it with cases of that site, give small sites one name "
                "(held-out folds need several patients of each), or do without harmonisation"
            )
        number = {name: i for i, name in enumerate(self.sites)}
        return np.array([number[name] for name in site], dtype=np.int64)


def fit_combat(X: FloatArray, site: Sequence[str], covariates: FloatArray | None = None, reference: str = "") -> Combat:
    """Learn each site's location and scale of the features, shrunk towards those of the site's other features.

    Features are standardised by their overall mean and pooled within-site variance. At a site, a feature's location
    and variance are the fixed point of the posterior means under a normal prior for the locations and an inverse gamma
    prior for the variances, both by the method of moments over the site's features (Johnson et al., section 3.2). The
    endpoint must not be a covariate: a new patient has none.

    Three cases that the paper leaves open: a site with one case has a location and no variance (1 is taken); a feature
    without variance within sites has its site's mean taken off, unshrunk, and is constant afterwards; with one site
    alone, nothing changes.

    Parameters
    ----------
    X
        Features, shape (cases, features), finite.
    site
        Shape (cases,); the name of each case's scanner or site.
    covariates
        What may differ between sites' patients and shall be kept, shape (cases, covariates), finite.
    reference
        A site whose values stay as they are, and whose mean and variance the others get (Stein et al., BMC Medical
        Genomics 8, 63, 2015; ``ref.batch`` of sva's ComBat); empty: the sites' common ones.

    Raises
    ------
    StatisticsError
        When a value is not finite, a case has no site, the covariates tell the sites apart, or the reference has
        fewer than two cases.
    """
    _check(X, site)
    sites, at = np.unique(np.asarray(site, dtype=str), return_inverse=True)
    Q = _design(covariates, len(X))
    centre = Q.mean(axis=0)
    location, slope = _least_squares(X, at, Q - centre)
    known = np.arange(len(X)) if not reference else _rows_of(reference, sites, at)
    mean = np.bincount(at[known], minlength=len(sites)) / len(known) @ location
    within = X - location[at] - (Q - centre) @ slope
    scale = np.sqrt((within[known] ** 2).mean(axis=0))
    flat = scale <= _ROUNDING * np.abs(X).max(axis=0)
    scale[flat] = 1.0
    Z = (X - mean - (Q - centre) @ slope) / scale

    shift, spread = location - mean, np.ones_like(location)
    if len(sites) == 1:
        shift = np.zeros_like(shift)
    elif not flat.all():
        for i in np.flatnonzero(sites != reference):
            shift[i, ~flat], spread[i, ~flat] = _posterior(Z[at == i][:, ~flat])
    return Combat(tuple(sites.tolist()), mean, scale, shift, spread, slope, centre)


def _rows_of(reference: str, sites: Sequence[str], at: IntArray) -> IntArray:
    rows = np.flatnonzero(np.asarray(sites)[at] == reference)
    if len(rows) < 2:
        raise StatisticsError(
            f"ComBat's reference site is {reference!r}, with {count(len(rows), 'case')} among those learned from, "
            f"expected two or more; there are {', '.join(map(repr, map(str, sites)))}"
        )
    return rows


def _posterior(Z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Location and variance of one site's standardised features, shape (cases, features)."""
    n = len(Z)
    location = Z.mean(axis=0)
    variance = Z.var(axis=0, ddof=1) if n > 1 else np.ones(Z.shape[1])
    centre, width = location.mean(), _variance(location)
    if n == 1:
        return (width * location + centre) / (width + 1.0), variance
    m, s2 = variance.mean(), _variance(variance)
    if s2 == 0.0:  # the prior is a point
        known = np.full_like(variance, m if m > 0 else 1.0)
        return (n * width * location + known * centre) / (n * width + known), known
    shape, rate = m**2 / s2 + 2.0, m**3 / s2 + m
    squares = ((Z - location) ** 2).sum(axis=0)
    shift, spread = location, variance
    for _ in range(_MOST_STEPS):
        moved = (n * width * location + spread * centre) / np.maximum(n * width + spread, np.finfo(float).tiny)
        # the sum of squares about the shrunken location
        scaled = (rate + 0.5 * (squares + n * (location - moved) ** 2)) / (n / 2 + shape - 1.0)
        change = max(np.abs(moved - shift).max(), np.abs(scaled - spread).max())
        shift, spread = moved, scaled
        if change < _SETTLED * max(1.0, spread.max()):
            break
    return shift, spread


def _variance(values: FloatArray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _least_squares(X: FloatArray, at: IntArray, Q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means of the sites, where the covariates are zero, and the covariates' slopes."""
    indicator = (at[:, None] == np.arange(at.max() + 1)).astype(float)
    span = np.sqrt((Q**2).mean(axis=0))
    design = np.hstack([indicator, Q / np.where(span > 0, span, 1.0)])
    solution, _, rank, _ = np.linalg.lstsq(design, X, rcond=1e-10)
    if rank < design.shape[1]:
        raise StatisticsError(
            f"ComBat: {Q.shape[1]} covariates and {indicator.shape[1]} sites of {len(X)} cases are collinear, so that "
            "the sites' part cannot be told from the covariates': leave covariates out"
        )
    slope = solution[indicator.shape[1] :] / np.where(span > 0, span, 1.0)[:, None]
    return solution[: indicator.shape[1]], slope


def _design(covariates: FloatArray | None, cases: int, columns: int | None = None) -> FloatArray:
    Q = np.zeros((cases, 0)) if covariates is None else np.asarray(covariates, dtype=float)
    if Q.shape != (cases, Q.shape[-1] if columns is None else columns) or not np.isfinite(Q).all():
        wanted = "" if columns is None else f" x {columns}"
        raise StatisticsError(f"ComBat needs {cases}{wanted} finite values of the covariates, got shape {Q.shape}")
    return Q


def _check(X: FloatArray, site: Sequence[str]) -> None:
    if len(X) != len(site) or not len(X):
        raise StatisticsError(f"ComBat needs the site of every case: {len(site)} sites for {len(X)} cases")
    unknown = sum(not name for name in site)
    if unknown:
        raise StatisticsError(f"ComBat needs the site of every case: {unknown} of {len(site)} have none")
    if not np.isfinite(X).all():
        raise StatisticsError(f"ComBat: {int((~np.isfinite(X)).sum())} values are not finite; impute them before")
