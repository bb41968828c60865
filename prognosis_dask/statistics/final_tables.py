"""The tables of the final model: coefficients, proportional hazards, in-sample curve, correlations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from prognosis_dask.statistics.clustered import clustered_ph_test, sandwich, score_residuals
from prognosis_dask.statistics.correlation import correlations
from prognosis_dask.statistics.cox import PartialLikelihood
from prognosis_dask.statistics.endpoint import FloatArray, Survival
from prognosis_dask.statistics.learners.cox import ProportionalHazards
from prognosis_dask.statistics.measures.hazards import ph_rows, ph_test
from prognosis_dask.statistics.nested import Map
from prognosis_dask.statistics.patients import several_cases
from prognosis_dask.statistics.procedure import Fitted, Procedure, visible
from prognosis_dask.statistics.study import in_sample_curve
from prognosis_dask.statistics.table import FeatureTable, of_families
from prognosis_dask.statistics.tuning import arrange

Rows = list[dict[str, Any]]

#: Logistic models are slow beside Cox's: each number of features up to this is on the curve, beyond it one in so many.
_EACH, _STEP = 20, 5
#: What a logistic model is fitted with where the procedure tries no penalty.
_LEAST_PENALTY = 0.01


def over_patients(model: Fitted, table: FeatureTable) -> Fitted:
    """The model with its coefficients' standard errors over patients, where these have several of its cases.

    That is Cox's model with a squared penalty, or none; other models have no standard errors, and come back as they
    are.
    """
    cox = model.model
    if not isinstance(cox, ProportionalHazards) or not isinstance(table.endpoint, Survival):
        return model
    if not several_cases(table.patient_ids) or np.isnan(cox.standard_error).any():
        return model
    Z, endpoint = model.prepared(table)[:, model.columns], table.endpoint
    residuals, _ = score_residuals(Z, endpoint.time_days, endpoint.event, cox.coefficient)
    inverse = _covariance(Z, endpoint, cox, model.tuned["penalty"])
    error = np.sqrt(np.diag(sandwich(residuals, inverse, table.patient_ids)))
    return replace(model, model=replace(cox, standard_error=error))


def coefficient_tables(model: Fitted, table: FeatureTable) -> dict[str, Rows]:
    """``coefficients`` of a linear model, and for Cox's model ``ph``; empty for others.

    The check of proportional hazards takes the coefficients' covariance from the penalised information; with more
    features than events there is none, and no check.
    """
    rows = {"coefficients": list(model.coefficients())}
    cox = model.model
    if not isinstance(cox, ProportionalHazards) or not isinstance(table.endpoint, Survival):
        return rows
    time, event = table.endpoint.time_days, table.endpoint.event
    if len(cox.coefficient) < event.sum() and len(np.unique(time[event])) > 1:
        Z = model.prepared(table)[:, model.columns]
        penalty = model.tuned["penalty"] * (1 - model.tuned["mixing"])
        fitted = (Z, time, event, cox.coefficient, _covariance(Z, table.endpoint, cox, penalty))
        if several_cases(table.patient_ids):
            rows["ph"] = ph_rows(model.chosen, clustered_ph_test(*fitted, table.patient_ids))
        else:
            rows["ph"] = ph_test(*fitted, model.chosen)
    return rows


def correlation_rows(model: Fitted, table: FeatureTable) -> Rows:
    """Pearson's correlation of the model's features with volume and stage, where the table has them."""
    position = {name: i for i, name in enumerate(table.features)}
    known = [i for i, family in enumerate(table.families) if family in ("volume", "stage")]
    others = {table.features[i]: table.X[:, i] for i in known}
    chosen = [name for name in model.chosen if name not in others]
    X = table.X[:, [position[name] for name in chosen]]
    return correlations(X, chosen, others, table.patient_ids) if chosen and others else []


def curve_rows(procedure: Procedure, table: FeatureTable, seed: int, map: Map) -> Rows:
    """The in-sample figure of a model of the first k features of the procedure's ranking, and of random ones.

    See :func:`prognosis_dask.statistics.study.in_sample_curve`. The curve ends at the most features that the procedure
    tries; its penalty is the least above zero that it tries.
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


def _covariance(Z: FloatArray, endpoint: Survival, cox: ProportionalHazards, penalty: float) -> FloatArray:
    order = np.argsort(endpoint.time_days, kind="stable")
    likelihood = PartialLikelihood(Z[order], endpoint.time_days[order], endpoint.event[order], penalty)
    return np.asarray(np.linalg.pinv(likelihood.derivatives(cox.coefficient)[1]))
