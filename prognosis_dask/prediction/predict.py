"""From a scan's features to the model's prediction, its most influential features, and how unusual the scan is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.data.families import IMAGE_FAMILIES, MEASURED_FAMILIES, kind_of
from prognosis_dask.modelling.data.network_features import NetworkFeatures
from prognosis_dask.modelling.data.reading import read_tables
from prognosis_dask.modelling.data.sources import dataset_source
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.saved import QUANTILES, Frozen, out_of_range, tells_apart
from prognosis_dask.modelling.validation.external import expect_agreement, training_overlap
from prognosis_dask.networks.grade_file import read_trained
from prognosis_dask.networks.grade_network import feature_names
from prognosis_dask.prediction.model import ScanModel, TrainingScans
from prognosis_dask.prediction.result import Influence, ModelOutput
from prognosis_dask.workflows.grade import make_volumes

#: So many of the most influential features are listed.
_MOST_LISTED = 8
#: Part of the training spacing by which a scan's may lie beyond it without a warning.
_SPACING_SLACK = 0.05
#: Kinds of features that come from the images: none of a scan's may be missing.
_FROM_IMAGES = (*IMAGE_FAMILIES, *MEASURED_FAMILIES)
_MEDIAN = QUANTILES.index(0.5)


def feature_row(model: ScanModel, dataset: xr.Dataset, run: Path) -> FeatureTable:
    """The one case of a feature dataset, with the features of the grade network and with missing clinical columns.

    Parameters
    ----------
    run
        The folder of the case's run, with its prepared brain.
    """
    frozen = model.frozen
    source = dataset_source(dataset.drop_vars(["time_days", "event"]), "the scan")  # nobody knows them yet
    table = read_tables([source], None, [e for e in frozen.encodings if source.find(e.column) is not None]).table
    if model.network is not None:
        volumes, brains = run / "volumes.zarr", run / "brain"
        make_volumes(brains, volumes, list(table.case_ids), model.job.grade)
        table = NetworkFeatures(str(volumes), model.job.grade).extend_by(table, read_trained(model.network))
    measured = {name for one in frozen.encodings if kind_of(one.family) in _FROM_IMAGES for name in one.features}
    held = {*table.features, *measured, *feature_names()}
    missing = [name for name in frozen.fitted.features if name not in held]
    units = dict(zip(frozen.fitted.features, frozen.fitted.units, strict=True))
    return replace(
        table,
        X=np.concatenate([table.X, np.full((1, len(missing)), np.nan)], axis=1),
        features=(*table.features, *missing),
        families=(*table.families, *("clinical",) * len(missing)),
        units=(*table.units, *(units[name] for name in missing)),
    )


def row_warnings(frozen: Frozen, table: FeatureTable) -> list[str]:
    """How a scan's features are unlike those that the model was fitted on.

    Raises
    ------
    StatisticsError
        When a feature of the images is missing, or features were made with other parameters than the model's.
    """
    warnings = [*expect_agreement(frozen, table, where="the scan"), *out_of_range(frozen, table)]
    if training_overlap(frozen, table).met:
        warnings.append("The model was fitted on this very scan: its prediction is no test of the model.")
    return warnings


def scan_warnings(training: TrainingScans, modality: str, spacing_mm: Sequence[float]) -> list[str]:
    """How the image itself is unlike those that the model learnt from."""
    warnings = []
    if training.modalities and modality not in training.modalities:
        learnt = ", ".join(sorted(training.modalities))
        warnings.append(f"The scan is {modality}, and the model learnt from {learnt} only.")
    if training.spacing_mm is None:
        return warnings
    for axis, value, least, most in zip(("x", "y", "z"), spacing_mm, *training.spacing_mm, strict=True):
        if not least * (1 - _SPACING_SLACK) <= value <= most * (1 + _SPACING_SLACK):
            seen = f"{least:.2f} mm" if least == most else f"{least:.2f} to {most:.2f} mm"
            warnings.append(
                f"The voxels' spacing along {axis} is {value:.2f} mm, in the model's training scans {seen}: texture "
                "features depend on it."
            )
    return warnings


def model_output(frozen: Frozen, table: FeatureTable) -> ModelOutput:
    """What the model predicts of the table's one case."""
    prediction = frozen.fitted.predict(table)
    score = float(prediction.risk_score[0]) if prediction.risk_score is not None else None
    place = percentile(frozen.risk_quantiles, score) if score is not None and tells_apart(frozen) else None
    probability: dict[str, float] = {}
    group, survival = None, {}
    if prediction.probability is not None:
        probability = dict(zip(frozen.classes, prediction.probability[0].tolist(), strict=True))
    elif score is not None and frozen.fitted.cutoff is not None:
        group = "high" if score > frozen.fitted.cutoff else "low"
    if prediction.survival is not None:
        values = prediction.survival(np.array(frozen.horizons_days))[0]
        survival = {f"{t:g}": float(s) for t, s in zip(frozen.horizons_days, values, strict=True)}
    return ModelOutput(
        kind="class" if frozen.classes else "survival",
        class_=max(probability, key=lambda name: probability[name]) if probability else None,
        probability=probability,
        risk_score=score,
        percentile=place,
        group=group,
        survival=survival,
    )


def percentile(quantiles: FloatArray, value: float) -> float | None:
    """The percentage of training cases below a value, between the quantiles that are known; None where none are.

    >>> percentile(np.arange(len(QUANTILES), dtype=float), 4.0), percentile(np.arange(9.0), -3.0)
    (50.0, 0.0)
    """
    if len(quantiles) != len(QUANTILES) or not np.isfinite(quantiles).all():
        return None
    return float(100 * np.interp(value, quantiles, QUANTILES))


def influences(frozen: Frozen, table: FeatureTable) -> tuple[Influence, ...]:
    """The features in the model by how much each alone moves the score, largest first.

    The change is the score less what it would be with the training cases' median of this feature in place of the
    scan's value: for a linear model, coefficient times distance from the median. The score is the risk score; of more
    than two classes the logarithm of the most probable one's probability.
    """
    fitted = frozen.fitted
    position = {name: i for i, name in enumerate(table.features)}
    medians = dict(zip(fitted.features, frozen.quantiles[_MEDIAN], strict=True))
    rows = np.repeat(table.X, 1 + len(fitted.chosen), axis=0)
    for row, name in enumerate(fitted.chosen, 1):
        rows[row, position[name]] = medians[name]
    names = tuple(f"{i}" for i in range(len(rows)))
    endpoint = table.endpoint.rows(np.zeros(len(rows), dtype=np.int64))
    several = replace(table, X=rows, case_ids=names, patient_ids=names, endpoint=endpoint, site=())
    score = _score(fitted.predict(several))
    found = [
        Influence(
            feature=name,
            unit=table.units[position[name]],
            value=_number(table.X[0, position[name]]),
            training_median=_number(medians[name]),
            percentile=_percentile_of(frozen, name, table.X[0, position[name]]),
            change=float(score[0] - score[row]),
        )
        for row, name in enumerate(fitted.chosen, 1)
    ]
    return tuple(sorted(found, key=lambda one: -abs(one.change))[:_MOST_LISTED])


def _score(prediction: Prediction) -> FloatArray:
    if prediction.risk_score is not None:
        return prediction.risk_score
    assert prediction.probability is not None
    most = prediction.probability[0].argmax()
    return np.asarray(np.log(np.maximum(prediction.probability[:, most], 1e-12)))


def _percentile_of(frozen: Frozen, name: str, value: float) -> float | None:
    at = frozen.fitted.features.index(name)
    return percentile(frozen.quantiles[:, at], value) if math.isfinite(value) else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
