"""From a table's columns to what selectors and learners take: complete, harmonised, pruned, standardised.

ComBat takes out of the features what scanner or site put in, by empirical Bayes (Johnson, Li & Rabinovic, Biostatistics
8, 118 (2007); for images Fortin et al., NeuroImage 161, 149 (2017)). What is learned from the training cases is applied
to any case of a site that was among them. Where patients have several scans, its longitudinal form tells patients from
sites by an intercept of each patient (Beer et al., NeuroImage 220, 117129 (2020)).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.data.table import FeatureTable, varying
from prognosis_dask.modelling.estimators.scores import linear_score
from prognosis_dask.modelling.imputing import Imputation
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.random_intercepts import fit_intercepts

#: Columns whose correlations are held at a time.
_BLOCK = 1000


@dataclass(frozen=True)
class Preparation:
    """What was learnt from the training cases about the columns.

    Attributes
    ----------
    median
        What a missing value becomes, per column of the table.
    combat, harmonised
        The harmonisation, and the positions of the columns it applies to; None without one.
    kept
        Positions of the columns that are left after pruning.
    mean, scale
        Of the kept columns: mean and standard deviation.
    weight
        What a standardised column is multiplied with: a penalty bears less on a column of greater weight.
    lower, upper
        What a standardised and weighted value is bounded at; None: no bounds.
    imputation
        What missing values are expected to be, given the other columns; None: the median.
    """

    median: FloatArray
    combat: Combat | None
    harmonised: IntArray
    kept: IntArray
    mean: FloatArray
    scale: FloatArray
    weight: FloatArray
    lower: FloatArray | None = None
    upper: FloatArray | None = None
    imputation: Imputation | None = None

    def apply(self, X: FloatArray, site: Sequence[str]) -> FloatArray:
        """The kept columns, standardised, weighted and bounded; ``X`` has all of the table's columns."""
        Z = self._unbounded(X, site)
        return Z if self.lower is None or self.upper is None else np.clip(Z, self.lower, self.upper)

    def bounded(self, X: FloatArray, site: Sequence[str]) -> BoolArray:
        """Which values are bounded, shape (cases, kept columns)."""
        Z = self._unbounded(X, site)
        if self.lower is None or self.upper is None:
            return np.zeros(Z.shape, dtype=bool)
        return np.asarray((self.lower > Z) | (self.upper < Z))

    def limits(self) -> tuple[FloatArray, FloatArray] | None:
        """The least and the greatest value that is taken as it is, of each kept column in its own unit."""
        if self.lower is None or self.upper is None:
            return None
        unit = self.scale / self.weight
        return self.mean + self.lower * unit, self.mean + self.upper * unit

    def _unbounded(self, X: FloatArray, site: Sequence[str]) -> FloatArray:
        X = completed(X, self.median, self.imputation)
        if self.combat is not None:
            X[:, self.harmonised] = self.combat.apply(X[:, self.harmonised], site)
        return np.asarray((X[:, self.kept] - self.mean) * (self.weight / self.scale))


def completed(X: FloatArray, median: FloatArray, imputation: Imputation | None) -> FloatArray:
    """The columns without a missing value."""
    return np.where(np.isnan(X), median, X) if imputation is None else imputation.complete(X, median)


def fit_preparation(
    table: FeatureTable, free: BoolArray, procedure: Procedure, imputation: Imputation | None = None
) -> Preparation:
    """Learn from the training cases how columns are completed, harmonised, pruned and standardised.

    Columns without any value, and constant ones, are left out.

    Parameters
    ----------
    table
        The training cases.
    free
        Which columns are harmonised and pruned; the others are only completed and standardised.
    procedure
        Says how.
    imputation
        How missing values are completed; None: by the median.

    Raises
    ------
    StatisticsError
        When a value is infinite, or harmonisation is asked for and the sites are unknown.
    """
    expect_finite(table)
    held = ~np.isnan(table.X).all(axis=0)
    median = np.zeros(len(held))
    lacking = np.isnan(table.X).any(axis=0)
    median[~lacking] = np.median(table.X[:, ~lacking], axis=0)
    median[held & lacking] = np.nanmedian(table.X[:, held & lacking], axis=0)
    X = completed(table.X, median, imputation)
    harmonised = np.flatnonzero(free & held) if procedure.harmonise else np.arange(0)
    combat = _fit_combat(X[:, harmonised], table, procedure) if procedure.harmonise else None
    if combat is not None:
        X[:, harmonised] = combat.apply(X[:, harmonised], table.site)
    keep = np.zeros(len(held), dtype=bool)
    keep[varying(X)] = True
    among = procedure.reproducible or table.features
    keep[free & (_flat(X, procedure.variance) | ~np.isin(table.features, among))] = False
    candidates = np.flatnonzero(keep & free)
    keep[candidates[_redundant(X[:, candidates], procedure.correlation)]] = False
    kept = np.flatnonzero(keep)
    weight = np.ones(len(kept))
    if procedure.balance_families:
        _, family, size = np.unique(np.array(table.families)[kept], return_inverse=True, return_counts=True)
        weight = 1.0 / np.sqrt(size[family])
    mean, scale = X[:, kept].mean(axis=0), X[:, kept].std(axis=0, ddof=1)
    prepared = Preparation(median, combat, harmonised, kept, mean, scale, weight, imputation=imputation)
    if not procedure.bound:
        return prepared
    Z, margin = (X[:, kept] - mean) * (weight / scale), procedure.bound_margin * weight
    return replace(prepared, lower=Z.min(axis=0) - margin, upper=Z.max(axis=0) + margin)


def expect_finite(table: FeatureTable) -> None:
    """Refuse infinite values.

    Raises
    ------
    StatisticsError
        Naming the first feature and case.
    """
    row, column = np.nonzero(np.isinf(table.X))
    if len(row):
        raise StatisticsError(
            f"{len(row)} values are infinite, the first of feature {table.features[column[0]]} in case "
            f"{table.case_ids[row[0]]}: leave the feature or the case out, or mark the value as missing"
        )


def _fit_combat(X: FloatArray, table: FeatureTable, procedure: Procedure) -> Combat:
    if not table.site:
        how = procedure.harmonise
        raise StatisticsError(f"harmonise is {how!r}, and the table does not say which site its cases are from")
    patients = _drawn_apart(table) if procedure.harmonise == "longitudinal-combat" else ()
    return fit_combat(X, table.site, reference=procedure.reference_site, patients=patients)


def expect_repeated_scans(table: FeatureTable, folds: int) -> None:
    """Refuse a cohort for longitudinal ComBat whose training folds may have no patient with several scans.

    Raises
    ------
    StatisticsError
        When there are fewer such patients than two per fold.
    """
    several = {name.rpartition("#")[0] for name, scans in Counter(_drawn_apart(table)).items() if scans > 1}
    if len(several) < 2 * folds:
        raise StatisticsError(
            f"harmonise is 'longitudinal-combat', and {count(len(several), 'patient')} of "
            f"{len(set(table.patient_ids))} have two scans that differ, expected {2 * folds} or more for {folds} "
            "folds: take harmonise = 'combat', or fewer folds"
        )


def _drawn_apart(table: FeatureTable) -> list[str]:
    """The patients; of a bootstrap sample a patient's copies are patients of their own: a copy is no second scan."""
    drawn: Counter[tuple[str, bytes]] = Counter()
    names = []
    for patient, row in zip(table.patient_ids, np.ascontiguousarray(table.X), strict=True):
        scan = (patient, row.tobytes())
        names.append(f"{patient}#{drawn[scan]}")
        drawn[scan] += 1
    return names


def _flat(X: FloatArray, least: float) -> BoolArray:
    """Columns whose variance, once they are scaled to 0..1, is below ``least``."""
    spread = np.ptp(X, axis=0)
    return np.asarray(X.var(axis=0) < least * spread**2)


def _redundant(X: FloatArray, most: float) -> BoolArray:
    """Columns whose absolute Spearman correlation with an earlier one that stays is above ``most``."""
    redundant = np.zeros(X.shape[1], dtype=bool)
    if most >= 1 or X.shape[1] < 2:
        return redundant
    from scipy.stats import rankdata

    ranks = rankdata(X, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    unit = np.asfortranarray(ranks / np.sqrt((ranks**2).sum(axis=0)))
    for start in range(0, X.shape[1], _BLOCK):  # never all features beside all features
        block = slice(start, min(start + _BLOCK, X.shape[1]))
        for before in range(0, start, _BLOCK):
            stays = before + np.flatnonzero(~redundant[before : before + _BLOCK])
            redundant[block] |= (np.abs(unit[:, stays].T @ unit[:, block]) > most).any(axis=0)
        close = np.abs(unit[:, block].T @ unit[:, block]) > most
        for column in range(block.stop - start):
            if not redundant[start + column]:
                redundant[start + column + 1 : block.stop] |= close[column, column + 1 :]
    return redundant


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
