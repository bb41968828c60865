"""From a run's folder to the figures of its report, each with its caption and a text for who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk

from prognosis_dask.errors import CaseError
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.report import cohort_figures, tables
from prognosis_dask.report.cohort_figures import Correlation, Thumbnail
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.picture import Picture
from prognosis_dask.report.read import RunFolder

#: Regions shown, spread over the cohort by volume.
MAX_THUMBNAILS = 8
_MARGIN_MM = 15.0


def gallery(run: RunFolder) -> Picture | None:
    """The largest slice of up to eight regions, from the smallest to the largest volume."""
    if run.rois is None:
        return None
    thumbnails = []
    for case_id, volume in _spread(run):
        try:
            thumbnails.append(_thumbnail(case_id, volume, run.rois.read_roi(case_id)))
        except CaseError:
            continue  # a damaged entry of the store; resume finds and redoes it
    if not thumbnails:
        return None
    columns = ["case_id", "volume_ml", "spacing_mm"]
    return Picture(
        "regions",
        cohort_figures.gallery(thumbnails),
        pd.DataFrame([(t.case_id, t.volume_ml, t.spacing_mm) for t in thumbnails], columns=columns),
        f"Image slices of {len(thumbnails)} regions of interest with the outline of the mask: "
        + ", ".join(f"{t.case_id} ({t.volume_ml:.3g} mL)" for t in thumbnails),
        "Regions of interest from the smallest to the largest, spread evenly over the cohort: the slice on which the "
        "mask is largest, with the mask’s outline along its pixels’ edges. Grey values run from the 1st to the 99th "
        "percentile of what is shown. Bar: 20 mm.",
    )


def _spread(run: RunFolder) -> list[tuple[str, float]]:
    volumes = per_case(run, "volume_ml")
    known = sorted((v, c) for c, v in volumes.items() if np.isfinite(v))
    if not known:
        return []
    places = np.unique(np.linspace(0, len(known) - 1, MAX_THUMBNAILS).round().astype(int))
    return [(known[place][1], known[place][0]) for place in places]


def per_case(run: RunFolder, name: str) -> dict[str, float]:
    """One of the ROI stage's numbers (``volume_ml``, ``n_slices``, ``lesion_cut``) for each case that has it."""
    results = {case_id: outcome.result.get(name) for case_id, outcome in run.outcomes.get("roi", {}).items()}
    return {case_id: float(value) for case_id, value in results.items() if isinstance(value, int | float)}


def _thumbnail(case_id: str, volume_ml: float, roi: Roi) -> Thumbnail:
    """The slice with the largest part of the mask, in a square that holds the mask and 15 mm on each side."""
    mask = sitk.GetArrayViewFromImage(roi.mask) > 0
    place = int(mask.sum(axis=(1, 2)).argmax())
    spacing = float(roi.image.GetSpacing()[0])
    rows, columns = (np.flatnonzero(mask[place].any(axis=axis)) for axis in (1, 0))
    side = int(max(np.ptp(rows), np.ptp(columns)) + 2 * _MARGIN_MM / spacing)
    # beyond the image's edge the square repeats the edge: every picture has the same shape
    at = np.ix_(*(_window(held, side, size) for held, size in zip((rows, columns), mask[place].shape, strict=True)))
    pixels = sitk.GetArrayViewFromImage(roi.image)[place].astype(float)[at]
    low, high = np.percentile(pixels, [1, 99])
    frame = np.clip(255 * (pixels - low) / max(high - low, 1e-9), 0, 255).astype(np.uint8)
    return Thumbnail(case_id, volume_ml, frame, mask[place][at], spacing)


def _window(held: npt.NDArray[np.intp], side: int, size: int) -> npt.NDArray[np.intp]:
    """``side`` positions around the middle of the held ones, none outside ``0..size - 1``."""
    start = int(held[0] + held[-1] + 1 - side) // 2
    return np.clip(np.arange(start, start + side), 0, size - 1)


def sizes(run: RunFolder) -> Picture | None:
    """Histograms of volume and number of slices."""
    volume = np.array(list(per_case(run, "volume_ml").values()))
    slices = np.array(list(per_case(run, "n_slices").values()))
    if not np.isfinite(volume).any():
        return None
    finite = volume[np.isfinite(volume)]
    cut = sum(value == 1 for value in per_case(run, "lesion_cut").values())
    note = f" In {cut} case{'s' if cut > 1 else ''} the lesion was larger than the frame and was cut." if cut else ""
    return Picture(
        "region_sizes",
        cohort_figures.sizes(volume, slices),
        _per_case_table(run, "volume_ml", "n_slices"),
        f"Histograms of the volume (median {np.median(finite):.3g} mL, {finite.min():.3g} to {finite.max():.3g} mL) "
        f"and of the number of slices (median {np.nanmedian(slices):.0f}) of {finite.size} regions.",
        f"Size of the {finite.size} regions of interest: volume, and number of slices that hold the region.{note}",
    )


def _per_case_table(run: RunFolder, *names: str) -> pd.DataFrame:
    columns = {name: pd.Series(per_case(run, name), dtype=float) for name in names}
    return pd.DataFrame(columns).rename_axis("case_id").reset_index()


def flow(run: RunFolder) -> Picture | None:
    """How many cases passed each step, and why the others did not; None where there is no case."""
    steps = tables.flow(run)
    if not steps or not steps[0].cases:
        return None
    rows: list[tuple[object, ...]] = [(step.title, step.cases, step.patients, "", None) for step in steps]
    rows += [(step.title, None, None, reason, lost) for step in steps for reason, lost in step.left_out]
    told = "; ".join(f"{step.title.lower()} {step.cases}" for step in steps)
    return Picture(
        "flow",
        cohort_figures.flow([(s.title, s.cases, s.patients, s.left_out) for s in steps]),
        pd.DataFrame(rows, columns=["step", "cases", "patients", "left_out_because", "left_out"]),
        f"Flow diagram of the cases: {told}.",
        "Flow of the cases. "
        + ("Left out at each step, and why: on the right." if any(s.left_out for s in steps) else "None was left out."),
    )


def correlation(run: RunFolder) -> Picture | None:
    """Clustered correlations of the highest-ranked features, or of the first ones where nothing was ranked."""
    table = feature_table(run)
    if table is None:
        return None
    ranked = _ranked(run.model, list(table.columns))
    ranked = ranked if len(ranked) > 1 else []  # of one alone there is no correlation; a network's are no columns here
    ordered = table[ranked] if ranked else table
    volume = pd.Series(per_case(run, "volume_ml"), dtype=float).reindex(table.index).to_numpy()
    found = cohort_figures.correlate(ordered.to_numpy(dtype=float), list(ordered.columns), volume)
    if found is None:
        return None
    kind = "highest-ranked" if ranked else "first"
    data = pd.DataFrame(found.between, columns=found.names)
    data.insert(0, "feature", found.names)
    data["volume_ml"] = found.with_volume
    return Picture("feature_correlations", cohort_figures.correlations(found), data, *_told(found, kind))


def _told(found: Correlation, kind: str) -> tuple[str, str]:
    count = len(found.names)
    strong = int((np.abs(found.with_volume) > 0.7).sum())
    upper = np.abs(found.between[np.triu_indices(count, 1)])
    alt = (
        f"Heat map of the correlations between {count} features: median absolute rho {np.median(upper):.2f}; "
        f"{strong} of them beyond 0.7 with the volume."
    )
    caption = (
        f"Spearman correlation between the {count} {kind} features, ordered by average linkage on 1 − |ρ| "
        f"(columns as rows), and, right, of each with the ROI volume. {strong} of {count} correlate with "
        "the volume beyond |ρ| = 0.7: such features say little that size does not."
    )
    return alt, caption


def feature_table(run: RunFolder) -> pd.DataFrame | None:
    """Radiomics and deep features side by side, one row per case; None where there are none."""
    parts = [part for part in (run.values("radiomics"), run.values("deep")) if part is not None]
    if not parts:
        return None
    table = pd.concat(parts, axis=1)
    # a stage that failed or never ran leaves whole rows of NaN; they say nothing of the other features
    complete = table.dropna(axis=1, how="all")
    return complete if complete.shape[1] else None


def _ranked(models: ModelFolder | None, known: Sequence[str]) -> list[str]:
    """The features that the outer folds chose most often."""
    selection = models.table("selection", "procedure", "feature", "share") if models is not None else None
    if models is None or selection is None:
        return []
    chosen = selection[(selection["procedure"] == models.primary) & (selection["share"] > 0)]
    names = set(known)
    return [f for f in chosen.sort_values("share", ascending=False, kind="stable")["feature"] if f in names]
