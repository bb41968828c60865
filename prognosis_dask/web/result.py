"""What is told of a scan whose stages are done: prediction, size, quality, warnings, drawings."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask import __version__
from prognosis_dask.cohort.case import SEQUENCES, Case
from prognosis_dask.modelling.saved import QUANTILES
from prognosis_dask.storage.brains import BrainStore
from prognosis_dask.storage.features import read_features
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.web.clinical import told as told_clinical
from prognosis_dask.web.drawings import place_among, survival_curves
from prognosis_dask.web.model import ServedModel
from prognosis_dask.web.predict import predict_case, quality_of, scan_warnings
from prognosis_dask.web.scans import Scan

NOTICE = "Research use only. Not a medical device: not for diagnosis or for decisions on treatment."
#: Drawings and predictions, by libraries that share state, one at a time.
_ONE = threading.Lock()


def warm_here(model: ServedModel) -> None:
    """Load what a prediction and its drawings need in this process."""
    frozen = model.frozen
    with _ONE:
        if frozen.survival_by_group:
            survival_curves(frozen.survival_by_group, "low", {})
        place_among(np.linspace(0.0, 1.0, len(QUANTILES)), 0.5, None)


def compose(
    scan: Scan, model: ServedModel, case: Case, shown: Mapping[str, Any], run: Path, folder: Path
) -> dict[str, Any]:
    """The result of a scan, as its page and its files say it; drawings and pictures go to its folder.

    Parameters
    ----------
    case
        What the upload was found to be.
    shown
        What the viewer begins with.
    run
        The folder of the case's small run, whose stages are done.
    folder
        The scan's own.

    Raises
    ------
    StatisticsError
        When the case's features are not the model's.
    """
    with _ONE:
        found = predict_case(model, read_features(run), run)
        _draw(model, found["prediction"], folder)
    spacing = RoiStore.open(run / "rois.zarr").read_roi(case.case_id).image.GetSpacing()
    result = {
        "notice": NOTICE,
        "model": {"title": model.title, **model.facts},
        "scan": {"modality": case.modality, "roi": case.roi, "sequences": list(case.sequences), **shown},
        "clinical": told_clinical(model, scan.clinical),
        **found,
        "program": f"prognosis_dask {__version__}",
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "quality": _quality(run),
    }
    result["warnings"] += scan_warnings(model.training, case.modality, spacing)
    if model.job.brain.enabled:
        attributes = _brain(run, case, folder)
        result["tumour"] = {"size": attributes.get("size", {}), **attributes.get("tumour", {})}
        result["epitome"] = attributes.get("slices", {})
        result["quality"] |= quality_of(attributes)
        learnt, seen = model.training.reference, str(attributes.get("reference", ""))
        if learnt and seen in SEQUENCES and seen != learnt:
            result["warnings"].append(f"The brain was prepared on {seen}, those of the training cases on {learnt}.")
        if attributes.get("tumour", {}).get("tumour_source") == "automatic":
            result["warnings"].insert(0, "The tumour was found automatically, not drawn: look at its outline first.")
    return result


def _draw(model: ServedModel, prediction: dict[str, Any], folder: Path) -> None:
    frozen = model.frozen
    if frozen.survival_by_group and "group" in prediction:
        curves = survival_curves(frozen.survival_by_group, prediction["group"], prediction.get("survival", {}))
        (folder / "survival.svg").write_text(curves, encoding="utf-8")
    if prediction.get("percentile") is not None:
        cutoff = frozen.fitted.cutoff if "group" in prediction else None
        place = place_among(frozen.risk_quantiles, prediction["risk_score"], cutoff)
        (folder / "place.svg").write_text(place, encoding="utf-8")


def _brain(run: Path, case: Case, folder: Path) -> dict[str, Any]:
    """What the brain stage says of the case; its pictures are copied beside the result."""
    store = BrainStore(run / "brain")
    attributes = dict(store.read(case.case_id).attributes)
    for name in ("epitome", "quality"):
        picture = store.folder(case.case_id) / f"{name}.png"
        if picture.is_file():
            shutil.copyfile(picture, folder / f"{name}.png")
    return attributes


def _quality(run: Path) -> dict[str, Any]:
    """What the ROI stage says of the case."""
    with Ledger.read(run / "ledger.sqlite") as ledger:
        (outcome,) = ledger.outcomes("roi").values()
    roi = outcome.result
    told = {
        "voxels in the ROI": roi["voxels"],
        "volume (ml)": roi["volume_ml"],
        "slices of the ROI": roi["n_slices"],
    }
    if roi.get("lesion_cut"):
        told["note"] = "part of the lesion lies outside of the window of the deep features"
    return told
