"""What is compared, and when survival is predicted, where nobody says it."""

from __future__ import annotations

from prognosis_dask.errors import StatisticsError
from prognosis_dask.job import ModelSection
from prognosis_dask.statistics.columns import IMAGE_FAMILIES, kind_of
from prognosis_dask.statistics.endpoint import Classes, Survival
from prognosis_dask.statistics.procedure import Procedure
from prognosis_dask.statistics.spec import EndpointRule, ModelSpec, ValidationRule
from prognosis_dask.statistics.table import FeatureTable

_YEAR = 365.0
#: Fewest cases that have the event up to a horizon, and fewest that are followed beyond it.
_FEWEST = 10
#: Numbers of features that are tried, besides the most that are allowed.
_GRID = (1, 2, 5, 10, 20, 50, 100)


def default_horizons(endpoint: Survival) -> tuple[float, ...]:
    """Of 1, 2, 3 and 5 years those within follow-up; else the median time of the events.

    >>> import numpy as np
    >>> default_horizons(Survival(np.arange(1.0, 1000.0, 4), np.arange(250) % 2 == 0))
    (365.0, 730.0)
    """
    years = [_YEAR * n for n in (1, 2, 3, 5)]
    before = [int((endpoint.event & (endpoint.time_days <= days)).sum()) for days in years]
    beyond = [int((endpoint.time_days > days).sum()) for days in years]
    within = [days for days, a, b in zip(years, before, beyond, strict=True) if min(a, b) >= _FEWEST]
    if within or not endpoint.event.any():
        return tuple(within)
    times = sorted(endpoint.time_days[endpoint.event].tolist())
    return (round(times[len(times) // 2]) or 1.0,)


def default_procedures(table: FeatureTable) -> dict[str, Procedure]:
    """One procedure for each family of features, volume with stage, and all of it.

    Image features by themselves are selected by SVM-RFE, and number and penalty are tuned. All families together are
    not selected but weigh the same, so that many image features do not drown a few others. The learner is Cox's model
    with a tuned ridge penalty, or logistic regression for classes.
    """
    learner = "logistic" if isinstance(table.endpoint, Classes) else "cox"
    families = list(dict.fromkeys(table.families))
    images = [family for family in families if kind_of(family) in IMAGE_FAMILIES]
    others = [family for family in families if kind_of(family) not in IMAGE_FAMILIES]
    found = {family: Procedure((family,), selector="", learner=learner) for family in others}
    if {"volume", "stage"} <= set(others):
        found["stage and volume"] = Procedure(("stage", "volume"), selector="", learner=learner)
    found |= {family: Procedure((family,), learner=learner) for family in images}
    if len(families) > 1:
        found["all"] = Procedure(tuple(families), balance_families=True, selector="", learner=learner)
    if not found:
        raise StatisticsError("the table has no features")
    return found


def job_spec(section: ModelSection, *, has_volume: bool) -> ModelSpec:
    """The specification that a job's ``[model]`` stands for: its features, and the volume alone to compare with."""
    learner = section.learner or ("logistic" if section.label else "cox")
    families = ("radiomics", "deep") if section.features == "both" else (section.features,)
    most = section.max_features
    counts = (*(k for k in _GRID if k < most), most)
    penalty = (section.penalizer,)
    procedures = {}
    if has_volume:
        procedures["volume"] = Procedure(("volume",), selector="", learner=learner, penalty=penalty)
    procedures[section.features] = Procedure(
        families,
        selector=section.selector,
        learner=learner,
        n_features=counts,
        penalty=penalty,
        label_days=section.label_days,
    )
    return ModelSpec(
        endpoint=EndpointRule(label=section.label, classes=section.classes),
        rows=section.rows,
        procedure=procedures,
        final=section.features,
        validation=ValidationRule(
            folds=section.folds, repeats=section.repeats, halves=section.halves, seed=section.seed
        ),
    )
