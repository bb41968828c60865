"""ComBat: what scanner or site put into features is learned from the training cases and taken out.

By empirical Bayes (Johnson, Li & Rabinovic, Biostatistics 8, 118 (2007); for images Fortin et al., NeuroImage 161, 149
(2017)). What is learned is applied to any case of a site that was among them. Where patients have several scans, its
longitudinal form tells patients from sites by an intercept of each patient (Beer et al., NeuroImage 220, 117129
(2020)): linear models of many features by restricted maximum likelihood, profiled over one number of each feature, the
ratio of the variance between patients to that within them. All that these need of the cases are sums over patients,
which are taken once; so all features are fitted together.
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
#: Ratios among which the least of the criterion is looked for before its root is found.
_RATIOS = np.concatenate([[0.0], np.geomspace(1e-4, 1e8, 97)])
#: Halvings of a bracket, down to a number's last bits.
_HALVINGS = 60


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
    level, share
        Of longitudinal ComBat: what a site's mean differs by, shape (sites, features), and the share of what is left of
        a case that is expected to be its patient's, shape (features,). Else None. ``scale`` is that within patients.
    """

    sites: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    shift: FloatArray
    spread: FloatArray
    slope: FloatArray
    centre: FloatArray
    level: FloatArray | None = None
    share: FloatArray | None = None

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
        if self.level is not None and self.share is not None:
            # from the case alone: that there is a later scan says that its patient lived to have it
            expected = expected + self.share * (X - expected - self.level[at])
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


def fit_combat(
    X: FloatArray,
    site: Sequence[str],
    covariates: FloatArray | None = None,
    reference: str = "",
    patients: Sequence[str] = (),
) -> Combat:
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
    patients
        Of each case, shape (cases,): longitudinal ComBat, without a reference. The sites' means are those of a model
        with a random intercept of each patient, by restricted maximum likelihood, and a site's location and variance
        those of what it leaves, in units of its residual deviation (Beer et al. 2020, section 2.3). Empty: none.

    Raises
    ------
    StatisticsError
        When a value is not finite, a case has no site, the covariates tell the sites apart, the reference has
        fewer than two cases, no patient has two, or there are too few cases for the sites.
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
    level = share = None
    expected = mean + (Q - centre) @ slope
    if len(patients):
        indicator = (at[:, None] == np.arange(len(sites))).astype(float)
        about = X.mean(axis=0)
        model = fit_intercepts(X - about, np.hstack([indicator, Q - centre]), patients)
        location, slope, share = about + model.solution[: len(sites)], model.solution[len(sites) :], model.share
        mean = np.bincount(at) / len(X) @ location
        expected, level = mean + (Q - centre) @ slope + model.of_case, location - mean
        flat = model.residual <= _ROUNDING * np.abs(X).max(axis=0)
        scale = np.where(flat, 1.0, model.residual)
    Z = (X - expected) / scale

    shift, spread = location - mean, np.ones_like(location)
    if len(sites) == 1:
        shift = np.zeros_like(shift)
    elif not flat.all():
        for i in np.flatnonzero(sites != reference):
            shift[i, ~flat], spread[i, ~flat] = _posterior(Z[at == i][:, ~flat])
    return Combat(tuple(sites.tolist()), mean, scale, shift, spread, slope, centre, level, share)


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
