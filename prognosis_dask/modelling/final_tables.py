"""The tables of the final model: coefficients, proportional hazards, in-sample curve, correlations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.arrays import FloatArray, IntArray, Map
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival, patient_sums, several_cases
from prognosis_dask.modelling.data.table import FeatureTable, of_families, varying
from prognosis_dask.modelling.estimators.class_models import fit_logistic
from prognosis_dask.modelling.estimators.cox import ProportionalHazards, cox_curve, fit_proportional_hazards
from prognosis_dask.modelling.estimators.partial_likelihood import likelihood_of
from prognosis_dask.modelling.fitted import Fitted
from prognosis_dask.modelling.metrics.classes import class_auc
from prognosis_dask.modelling.metrics.competing import COMPETING, EVENT, causes, fine_gray
from prognosis_dask.modelling.metrics.cox_tests import clustered_ph_test, ph_rows, ph_test, sandwich, score_residuals
from prognosis_dask.modelling.metrics.intervals import Z95
from prognosis_dask.modelling.procedure import Procedure, visible
from prognosis_dask.modelling.table_spec import Row, Tables
from prognosis_dask.modelling.tuning import arrange

#: Logistic models are slow beside Cox's: each number of features up to this is on the curve, beyond it one in so many.
_EACH, _STEP = 20, 5
#: What a logistic model is fitted with where the procedure tries no penalty.
_LEAST_PENALTY = 0.01
#: Draws of random features, as many as a range needs to be read by eye.
DRAWS = 12
#: Correlations this close to one are one, up to rounding.
_PERFECT = 1.0 - 1e-12
#: A spread below this share of the values' magnitude is rounding.
_ROUNDING = 1e-12


def over_patients(model: Fitted, table: FeatureTable) -> Fitted:
    """The model with its coefficients' standard errors over patients, where these have several of its cases.

    So too where events compete: weights are no observations, and the information counts them as such.

    That is Cox's model with a squared penalty, or none; other models have no standard errors, and come back as they
    are.
    """
    cox = model.model
    if not isinstance(cox, ProportionalHazards) or not isinstance(table.endpoint, Survival):
        return model
    Z, endpoint = model.prepared(table)[:, model.columns], table.endpoint
    if not (several_cases(table.patient_ids) or endpoint.competing is not None) or np.isnan(cox.standard_error).any():
        return model
    residuals, _ = score_residuals(Z, endpoint, cox.coefficient)
    inverse = covariance(Z, endpoint, cox, model.tuned["penalty"])
    error = np.sqrt(np.diag(sandwich(residuals, inverse, table.patient_ids)))
    return replace(model, model=replace(cox, standard_error=error))


def coefficient_tables(model: Fitted, table: FeatureTable) -> Tables:
    """``coefficients`` of a linear model, and for Cox's model ``ph``; empty for others.

    The check of proportional hazards takes the coefficients' covariance from the penalised information; with more
    features than events there is none, and no check.
    """
    rows = {"coefficients": list(model.coefficients())}
    cox = model.model
    if not isinstance(cox, ProportionalHazards) or not isinstance(table.endpoint, Survival):
        return rows
    endpoint = table.endpoint
    if len(cox.coefficient) < endpoint.event.sum() and len(np.unique(endpoint.observed_days[endpoint.event])) > 1:
        Z = model.prepared(table)[:, model.columns]
        penalty = model.tuned["penalty"] * (1 - model.tuned["mixing"])
        fitted = (Z, endpoint, cox.coefficient, covariance(Z, endpoint, cox, penalty))
        if several_cases(table.patient_ids):
            rows["ph"] = ph_rows(model.chosen, clustered_ph_test(*fitted, table.patient_ids))
        else:
            rows["ph"] = ph_test(*fitted, model.chosen)
    return rows


def competing_rows(model: Fitted, table: FeatureTable) -> list[Row]:
    """The rows of ``competing``: the final Cox model's features in Fine and Gray's and both cause-specific models."""
    cox, endpoint = model.model, table.endpoint
    if (
        not isinstance(cox, ProportionalHazards)
        or not isinstance(endpoint, Survival)
        or endpoint.competing_days is None
    ):
        return []
    if not model.chosen or model.tuned["mixing"] > 0:
        return []
    Z, penalty = model.prepared(table)[:, model.columns], model.tuned["penalty"]
    time, cause = causes(endpoint)
    weight = model.preparation.weight[model.columns]
    found = {"subdistribution": fine_gray(Z, endpoint, penalty)}
    for name, of in (("cause_specific", EVENT), ("of_competing", COMPETING)):
        found[name] = fit_proportional_hazards(Z, Survival(time, cause == of), [penalty], 0.0, [])[0].coefficient
    return [
        {"feature": feature, **{name: math.exp(values[at] * weight[at]) for name, values in found.items()}}
        for at, feature in enumerate(model.chosen)
    ]


def covariance(Z: FloatArray, endpoint: Survival, cox: ProportionalHazards, penalty: float) -> FloatArray:
    """The inverse of the penalised information of a Cox model's coefficients."""
    return np.asarray(np.linalg.pinv(likelihood_of(Z, endpoint, penalty).derivatives(cox.coefficient)[1]))


def correlation_rows(model: Fitted, table: FeatureTable) -> list[Row]:
    """Pearson's correlation of the model's features with volume and stage, where the table has them."""
    position = {name: i for i, name in enumerate(table.features)}
    known = [i for i, family in enumerate(table.families) if family in ("volume", "stage")]
    others = {table.features[i]: table.X[:, i] for i in known}
    chosen = [name for name in model.chosen if name not in others]
    X = table.X[:, [position[name] for name in chosen]]
    return correlations(X, chosen, others, table.patient_ids) if chosen and others else []


def correlations(
    X: FloatArray, features: Sequence[str], others: Mapping[str, FloatArray], patient_ids: Sequence[str]
) -> list[Row]:
    """Correlate every feature with every one of some other variables.

    Parameters
    ----------
    X
        Shape (cases, features); NaN where a value is missing: such pairs are left out.
    features
        The columns' names.
    others
        Name to values, shape (cases,).
    patient_ids
        Whose case it is.

    Returns
    -------
    list of dict
        The rows of ``correlation``: the interval is Fisher's; p is that of Student's t for no correlation, not
        adjusted for the number of features. Where patients have several cases, both
        take the variance over patients. NaN where one of the two is constant or fewer than four patients have both.
    """
    patients = np.asarray(patient_ids)
    rows: list[Row] = []
    for name, other in others.items():
        for column, feature in zip(X.T, features, strict=True):
            both = np.isfinite(column) & np.isfinite(other)
            rows.append({"feature": feature, "with": name, **_pearson(column[both], other[both], patients[both])})
    return rows


def _pearson(x: FloatArray, y: FloatArray, patients: NDArray[np.str_]) -> dict[str, float]:
    n, independent = len(x), len(np.unique(patients))
    if independent < 4 or _constant(x) or _constant(y):
        return {"n": n, "pearson": math.nan, "lower": math.nan, "upper": math.nan, "p": math.nan}
    from scipy.special import stdtr

    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    r = float(np.clip(x @ y, -1.0, 1.0))
    if abs(r) >= _PERFECT:
        return {"n": n, "pearson": r, "lower": r, "upper": r, "p": 0.0}
    if independent == n:
        t, half = abs(r) * math.sqrt((n - 2) / (1.0 - r**2)), Z95 / math.sqrt(n - 3)
    else:
        error = _fisher_error(x, y, r, patients)
        t, half = abs(math.atanh(r)) / error, Z95 * error
    return {
        "n": n,
        "pearson": r,
        "lower": math.tanh(math.atanh(r) - half),
        "upper": math.tanh(math.atanh(r) + half),
        "p": 2.0 * float(stdtr(independent - 2, -t)),
    }


def _fisher_error(x: FloatArray, y: FloatArray, r: float, patients: NDArray[np.str_]) -> float:
    """Standard error of Fisher's z over patients, of columns of mean 0 and length 1.

    From the influence of each case on the correlation (Devlin, Gnanadesikan & Kettenring, Biometrika 62, 1975), added
    up within patients; widened like Fisher's own, which divides by n - 3.
    """
    influence = x * y - r / 2 * (x**2 + y**2)
    sums = patient_sums(influence[:, None], patients.tolist())
    return math.sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 3)) / (1.0 - r**2)


def _constant(values: FloatArray) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def curve_rows(procedure: Procedure, table: FeatureTable, seed: int, map: Map) -> list[Row]:
    """The in-sample figure of a model of the first k features of the procedure's ranking, and of random ones.

    See :func:`in_sample_curve`. The curve ends at the most features that the procedure tries; its penalty is the least
    above zero that it tries.
    """
    seen = visible(procedure, table)
    arranged = arrange(procedure, seen, [seed])
    ranking = arranged.preparation.kept[arranged.ranked]
    free = np.flatnonzero(~of_families(seen.families, procedure.forced))
    place = {int(column): i for i, column in enumerate(free)}
    ranked = [place[int(column)] for column in ranking]
    most = min(max(procedure.n_features), len(ranked))
    ks, penalties = list(range(1, most + 1)), procedure.penalty
    if not isinstance(table.endpoint, Survival):
        ks = [k for k in ks if k <= _EACH or k % _STEP == 0 or k == most]
        penalties = tuple(value for value in penalties if value > 0) or (_LEAST_PENALTY,)
    return in_sample_curve(seen.columns(free), ranked, ks, seed=[seed], map=map, penalizer=min(penalties))


def in_sample_curve(
    table: FeatureTable,
    ranking: IntArray | Sequence[int],
    ks: Iterable[int],
    draws: int = DRAWS,
    seed: int | Sequence[int] = 0,
    map: Map = map,
    *,
    penalizer: float = 0.01,
) -> list[Row]:
    """In-sample concordance of the Cox model on the first k features, and on k features drawn at random.

    Of classes it is the area under the ROC curve of the logistic model.

    In each draw the columns that vary are shuffled, and the first k of them taken for every k: what is said of one k
    is said of k features drawn without replacement. Missing values become the column's median.

    Parameters
    ----------
    table
        The cases.
    ranking
        Columns, best first; constant ones are passed over.
    ks
        Numbers of features; those beyond the columns that there are, are left out.
    draws
        How often random features are drawn.
    seed
        Of the draws.
    map
        Runs the curves, one per task; called like the built-in one.
    penalizer
        The squared penalty of the model.

    Returns
    -------
    list of dict
        The rows of ``curve``; NaN where the model has no maximum, as may be without a penalty.

    Raises
    ------
    StatisticsError
        Without an event, or when no column varies.
    """
    X = _complete(table.X)
    columns = varying(X)
    endpoint = table.endpoint
    if isinstance(endpoint, Survival) and not endpoint.event.any():
        raise StatisticsError(f"{len(X)} cases without events: there is no curve to draw")
    if not len(columns):
        raise StatisticsError(f"none of {X.shape[1]} features varies among {len(X)} cases: there is no curve to draw")
    first = np.asarray(ranking, dtype=np.int64)
    first = first[np.isin(first, columns)]
    wanted = [k for k in ks if 1 <= k <= len(first)]
    rng = np.random.default_rng(seed)
    orders = [first, *(rng.permutation(columns)[: max(wanted, default=0)] for _ in range(draws))]
    fit = partial(_curve, X, endpoint, wanted, penalizer)
    ranked, *random = map(fit, orders)
    name = "c_index_in_sample" if isinstance(endpoint, Survival) else "auc_in_sample"
    return [
        {"k": k, name: ranked[i], **_range([draw[i] for draw in random]), "of": len(columns)}
        for i, k in enumerate(wanted)
    ]


def _range(draws: Sequence[float]) -> dict[str, float]:
    """Median and range of the draws that gave a model; NaN where none did."""
    held = [value for value in draws if math.isfinite(value)] or [math.nan]
    return {"random_median": float(np.median(held)), "random_lower": min(held), "random_upper": max(held)}


def _curve(X: FloatArray, endpoint: Endpoint, ks: Sequence[int], penalizer: float, order: IntArray) -> list[float]:
    """NaN where there is no model: without a penalty, so many features may order the events perfectly."""
    curve = []
    for k in ks:
        try:
            curve.append(_figure(X[:, order[:k]], endpoint, penalizer))
        except StatisticsError:
            curve.append(float("nan"))
    return curve


def _figure(X: FloatArray, endpoint: Endpoint, penalizer: float) -> float:
    """The figure of the model of all columns, on the cases that it was fitted on."""
    if isinstance(endpoint, Survival):
        return cox_curve(X, endpoint, [X.shape[1]], penalizer)[0]
    Z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    (model,) = fit_logistic(Z, endpoint, [penalizer], 0.0, [0])
    probability = model.predict(Z).probability
    assert probability is not None
    return class_auc(endpoint.label, probability)


def _complete(X: FloatArray) -> FloatArray:
    """With missing values filled by their column's median; columns without any value become zero."""
    missing = ~np.isfinite(X)
    if not missing.any():
        return X
    filled = X.copy()
    for column in np.flatnonzero(missing.any(axis=0)):
        held = X[~missing[:, column], column]
        filled[missing[:, column], column] = np.median(held) if len(held) else 0.0
    return filled
