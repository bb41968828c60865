"""From the finished stages of one scan to its prediction: the model's output, figures, warnings, drawings, pictures.

The model's output has the most influential features, and how unusual the scan is.
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from prognosis_dask import __version__
from prognosis_dask.arrays import FloatArray
from prognosis_dask.brain.size import TumourSize
from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.errors import Code, Problem
from prognosis_dask.features.dataset import read_features
from prognosis_dask.features.registry import ROI
from prognosis_dask.modelling.data.families import image_families, kind_of, measured_families
from prognosis_dask.modelling.data.network_features import NetworkFeatures
from prognosis_dask.modelling.data.reading import read_tables
from prognosis_dask.modelling.data.sources import dataset_source
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.saved import QUANTILES, Frozen, out_of_range, tells_apart
from prognosis_dask.modelling.validation.external import expect_agreement, training_overlap
from prognosis_dask.networks.grade_network import feature_names
from prognosis_dask.networks.training import read_trained
from prognosis_dask.prediction.model import ScanModel, TrainingScans
from prognosis_dask.prediction.result import (
    NOTICE,
    VERSION,
    ClinicalValue,
    Epitome,
    EpitomeSlice,
    Influence,
    ModelOutput,
    Quantity,
    ScanInfo,
    ScanPrediction,
    SliceView,
    Tumour,
    without_identifiers,
)
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg, time_axis
from prognosis_dask.storage.brains import BrainStore
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.workflows.grade import make_volumes

#: Drawings and predictions, by libraries that share state, one at a time.
_ONE_AT_A_TIME = threading.Lock()
#: The units of the preprocessing's figures, by how their names begin; the others have none.
_UNITS = {
    "brain_volume_l": "L",
    "missing_ml": "mL",
    "beyond_ml": "mL",
    "skull_mm": "mm",
    "off_centre_mm": "mm",
    "moved_mm": "mm",
    "mutual_information": "nat",
    "shared": "nat",
}


def compose(
    model: ScanModel, case: Case, shown: Mapping[str, Any], run: Path, out: Path, secrets: Sequence[str] = ()
) -> ScanPrediction:
    """The prediction of a case, without its ``seconds``; drawings and pictures go to the folder ``out``.

    Parameters
    ----------
    case
        With the clinical values that were given.
    shown
        What :func:`prognosis_dask.prediction.slices.write_slices` says of it.
    run
        The folder of the case's run, whose stages are done.
    secrets
        The patient's identifiers, which no warning holds.

    Raises
    ------
    StatisticsError
        When the case's features are not the model's.
    """
    view: SliceView = shown["view"]
    with _ONE_AT_A_TIME:
        table = feature_row(model, read_features(run), run)
        warnings = [*model.worth.warnings, *row_warnings(model.frozen, table)]
        prediction = model_output(model.frozen, table)
        influential = influences(model.frozen, table)
        _draw(model, prediction, out)
    spacing = RoiStore.open(run / "rois.zarr").read_roi(case.case_id).image.GetSpacing()
    warnings += scan_warnings(model.training, case.modality, spacing)
    quality, said = _of_stages(model, run)
    tumour, epitome = None, None
    used = case.sequences or {"image": case.image}
    if model.job.brain.enabled:
        attributes, pictures = _of_brain(run, case, out)
        used = {name: path for name, path in used.items() if name in attributes["sequences"]} or used
        tumour, epitome = _tumour(attributes, shown["size"]), _epitome(attributes["slices"], pictures["epitome"])
        quality |= {name: Quantity(value, _unit(name)) for name, value in dict(attributes["quality"]).items()}
        if tumour.mask == "automatic":
            said = ["The tumour was found automatically, not drawn: look at its outline first.", *said]
    elif not case.mask:
        said = ["The region was outlined by a network, not drawn: look at its outline first.", *said]
    of_run = {"run": model.job.name, "procedure": model.procedure}
    return ScanPrediction(
        version=VERSION,
        notice=NOTICE,
        program=f"prognosis_dask {__version__}",
        finished=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        seconds=0.0,
        model={"title": model.title, **{name: text for name, text in of_run.items() if text}, **model.facts},
        worth={"sentence": model.worth.sentence, **model.worth.figures},
        scan=_scan_info(case, used),
        view=view,
        clinical=_clinical(model, case.covariates),
        prediction=prediction,
        influences=influential,
        tumour=tumour,
        epitome=epitome,
        quality=quality,
        warnings=(*(without_identifiers(text, secrets) for text in said), *warnings),
    )


def _scan_info(case: Case, used: Mapping[str, str]) -> ScanInfo:
    files = {name: read_listing(path).root if path.endswith(".series.json") else path for name, path in used.items()}
    sequences = tuple(name for name in used if name in case.sequences)
    return ScanInfo(None, files, case.modality, case.roi, sequences)


def _clinical(model: ScanModel, given: Mapping[str, str]) -> tuple[ClinicalValue, ...]:
    return tuple(
        ClinicalValue(one.column, one.unit, given.get(one.column), one.training[1] if one.training else None)
        for one in model.clinical_inputs
    )


def _of_stages(model: ScanModel, run: Path) -> tuple[dict[str, Quantity], list[str]]:
    """The figures of the region of interest, and the stages' warnings."""
    warned: list[Problem] = []
    with Ledger.read(run / "ledger.sqlite") as ledger:
        (roi,) = ledger.results(ROI.name).values()
        for stage in ledger.counts():
            warned += [warning for result in ledger.results(stage).values() for warning in result.warnings]
    quality = {
        "voxels in the ROI": Quantity(int(roi.number("voxels")), "1"),
        "volume": Quantity(roi.number("volume_ml"), "mL"),
        "slices of the ROI": Quantity(int(roi.number("n_slices")), "1"),
    }
    # frames are the networks': no other feature depends on them
    if not (model.job.deep.enabled or model.job.deep_2.enabled):
        return quality, [_sentence(warning) for warning in warned if warning.code is not Code.WINDOW_UNFIT]
    cut = "Part of the lesion lies outside of the window of the deep features."
    return quality, [*map(_sentence, warned), *([cut] if roi.values.get("lesion_cut") else [])]


def _sentence(warning: Problem) -> str:
    return f"{warning.reason[:1].upper()}{warning.reason[1:]}."


def _of_brain(run: Path, case: Case, out: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the brain stage says of the case, and its pictures, which go to the folder ``out`` too."""
    store = BrainStore(run / BrainStore.stage)
    pictures = {}
    for name in ("epitome", "quality"):
        pictures[name] = (Path(store.folder(case.case_id)) / f"{name}.png").read_bytes()
        (out / f"{name}.png").write_bytes(pictures[name])
    return dict(store.read(case.case_id).attributes), pictures


def _tumour(attributes: Mapping[str, Any], size: TumourSize) -> Tumour:
    how = attributes["tumour"]
    return Tumour.of(size, str(how["tumour_source"]), how.get("tumour_confidence"))


def _epitome(places: Mapping[str, int], mosaic: bytes) -> Epitome:
    """The slices in order, each with what it shows."""
    shows = {index: [name for name, at in places.items() if at == index] for index in sorted(set(places.values()))}
    slices = tuple(EpitomeSlice(index, ", ".join(names)) for index, names in shows.items())
    return Epitome(slices, base64.b64encode(mosaic).decode("ascii"))


def _unit(figure: str) -> str:
    return next((unit for start, unit in _UNITS.items() if figure.startswith(start)), "1")


def _draw(model: ScanModel, prediction: ModelOutput, out: Path) -> None:
    frozen = model.frozen
    if frozen.survival_by_group and prediction.group:
        curves = survival_curves(frozen.survival_by_group, prediction.group, prediction.survival)
        (out / "survival.svg").write_text(curves, encoding="utf-8")
    if prediction.percentile is not None and prediction.risk_score is not None:
        cutoff = frozen.fitted.cutoff if prediction.group else None
        place = place_among(frozen.risk_quantiles, prediction.risk_score, cutoff)
        (out / "place.svg").write_text(place, encoding="utf-8")


def warm_drawings(model: ScanModel) -> None:
    """Load what a prediction and its drawings need in this process."""
    frozen = model.frozen
    with _ONE_AT_A_TIME:
        if frozen.survival_by_group:
            survival_curves(frozen.survival_by_group, "low", {})
        place_among(np.linspace(0.0, 1.0, len(QUANTILES)), 0.5, None)


#: Inches: letters are readable on a phone, where the report's wider figures would have to shrink.
_WIDTH = 4.6


@svg
def survival_curves(groups: Mapping[str, FloatArray], group: str, own: Mapping[str, float]) -> Figure:
    """The training cases' survival by risk group, the scan's own group strong, with the model's figures for the scan.

    Parameters
    ----------
    groups
        Name to (2, times): days and survival.
    group
        The scan's.
    own
        Days, as text, to the model's survival for this scan.
    """
    axis = time_axis(max(float(curve[0, -1]) for curve in groups.values()))
    figure = canvas.new_figure(_WIDTH, 3.2)
    axes = figure.subplots()
    for (name, curve), colour in zip(sorted(groups.items()), (canvas.VERMILION, canvas.BLUE), strict=False):
        strong = name == group
        axes.step(
            curve[0] / axis.days,
            curve[1],
            where="post",
            color=colour,
            linewidth=2.4 if strong else 1.0,
            alpha=1.0 if strong else 0.6,
            linestyle="-" if name == "low" else (0, (5, 1.5)),
            label=f"{name} risk{': the group of this scan' if strong else ''}",
        )
    if own:
        days = np.array([float(day) for day in own])
        axes.plot(
            days / axis.days, list(own.values()), "o", color=canvas.INK, markersize=5, label="the model for this scan"
        )
    axes.set(xlabel=f"time ({axis.unit})", ylabel="survival", ylim=(0, 1.02), xlim=(0, None), xticks=axis.ticks)
    canvas.light_grid(axes, "y")
    axes.legend(loc="upper right")
    return figure


@svg
def place_among(quantiles: FloatArray, score: float, cutoff: float | None) -> Figure:
    """A box of the training cases' scores with the scan's own marked.

    Parameters
    ----------
    quantiles
        Of the scores, at :data:`prognosis_dask.modelling.saved.QUANTILES`.
    score, cutoff
        The scan's, and what parts the groups.
    """
    least, _, five, lower, median, upper, ninety_five, _, most = (float(q) for q in quantiles)
    assert len(QUANTILES) == 9
    figure = canvas.new_figure(_WIDTH, 1.4)
    axes = figure.subplots()
    axes.plot([least, most], [0, 0], color=canvas.GREY, linewidth=1)
    axes.plot([five, ninety_five], [0, 0], color=canvas.GREY, linewidth=4, solid_capstyle="butt")
    axes.barh(0, upper - lower, left=lower, height=0.5, color=canvas.PALE, edgecolor=canvas.GREY)
    axes.plot([median, median], [-0.25, 0.25], color=canvas.INK)
    if cutoff is not None:
        axes.axvline(cutoff, color=canvas.GREY, linestyle=":", linewidth=1)
    axes.plot(score, 0, "D", color=canvas.VERMILION, markersize=9)
    axes.annotate("this scan", (score, 0), (0, 13), textcoords="offset points", ha="center", color=canvas.VERMILION)
    axes.set(ylim=(-0.6, 0.9), yticks=[], xlabel="score (box: middle half of training cases, thick line: 90 %)")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    return figure


#: So many of the most influential features are listed.
_MOST_LISTED = 8
#: Part of the training spacing by which a scan's may lie beyond it without a warning.
_SPACING_SLACK = 0.05
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
        volumes, brains = run / "volumes.zarr", run / BrainStore.stage
        make_volumes(brains, volumes, list(table.case_ids), model.job.grade)
        table = NetworkFeatures(str(volumes), model.job.grade).extend_by(table, read_trained(model.network))
    from_image = {*image_families(), *measured_families()}  # none of these may be missing
    measured = {name for one in frozen.encodings if kind_of(one.family) in from_image for name in one.features}
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
    """How a scan's features differ from those that the model was fitted on.

    Raises
    ------
    StatisticsError
        When a feature of the images is missing, or features were made with other parameters than the model's.
    """
    warnings = [*expect_agreement(frozen, table, where="the scan"), *out_of_range(frozen, table)]
    if training_overlap(frozen, table).in_training:
        warnings.append("The model was fitted on this very scan: its prediction does not test the model.")
    return warnings


def scan_warnings(training: TrainingScans, modality: str, spacing_mm: Sequence[float]) -> list[str]:
    """How the image itself differs from those that the model was fitted on."""
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
