"""From a run's folder to the figures of its report, each with its caption and a text for who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk

from prognosis_dask.errors import CaseError
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.report import cohort_figures, model_figures
from prognosis_dask.report.canvas import data_uri
from prognosis_dask.report.cohort_figures import Correlation, Thumbnail
from prognosis_dask.report.read import Model, RunFolder

#: Regions shown, spread over the cohort by volume.
MAX_THUMBNAILS = 8
_MARGIN_MM = 15.0


@dataclass(frozen=True)
class Picture:
    """An image that needs no other file, its text alternative and its caption."""

    source: str
    alt: str
    caption: str


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
    return Picture(
        data_uri(cohort_figures.gallery(thumbnails)),
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
        data_uri(cohort_figures.sizes(volume, slices)),
        f"Histograms of the volume (median {np.median(finite):.3g} mL, {finite.min():.3g} to {finite.max():.3g} mL) "
        f"and of the number of slices (median {np.nanmedian(slices):.0f}) of {finite.size} regions.",
        f"Size of the {finite.size} regions of interest: volume, and number of slices that hold the region.{note}",
    )


def correlation(run: RunFolder) -> Picture | None:
    """Clustered correlations of the highest-ranked features, or of the first ones where nothing was ranked."""
    table = feature_table(run)
    if table is None:
        return None
    ranked = _ranked(run.model, list(table.columns))
    ordered = table[ranked] if ranked else table
    volume = pd.Series(per_case(run, "volume_ml"), dtype=float).reindex(table.index).to_numpy()
    found = cohort_figures.correlate(ordered.to_numpy(dtype=float), list(ordered.columns), volume)
    if found is None:
        return None
    kind = "highest-ranked" if ranked else "first"
    return Picture(data_uri(cohort_figures.correlations(found)), *_told(found, kind))


def _told(found: Correlation, kind: str) -> tuple[str, str]:
    count = len(found.names)
    strong = int((np.abs(found.with_volume) > 0.7).sum())
    upper = np.abs(found.between[np.triu_indices(count, 1)])
    alt = (
        f"Heat map of the correlations between {count} features: median absolute rho {np.median(upper):.2f}; "
        f"{strong} features correlate with the volume beyond 0.7."
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


def _ranked(model: Model | None, known: Sequence[str]) -> list[str]:
    if model is None or model.ranking is None:
        return []
    names = set(known)
    return [str(name) for name in model.ranking.sort_values("rank")["feature"] if name in names]


def concordance(model: Model) -> Picture | None:
    """In-sample and cross-validated C-index."""
    if model.curve is None and model.validation is None:
        return None
    estimate = _estimate(model)
    alt = ["Harrell's concordance index over the number of selected features."]
    caption = ["Harrell’s concordance index."]
    if model.curve is not None:
        alt.append(f"In-sample {model.summary.get('c_index_in_sample', float('nan')):.2f} (optimistic).")
        caption.append(
            "Dashed: in-sample, over the number of features k, as the reference study reports it; it is optimistic, "
            "since features and coefficients were chosen on the same cases."
        )
    if model.validation is not None:
        caption.append("Points: the held-out cases of each fold; scaling and selection saw its training cases alone.")
    if estimate is not None:
        alt.append(f"Cross-validated {estimate[0]:.2f} ({estimate[1]:.2f} to {estimate[2]:.2f}).")
        interval = _in_brackets(model.summary.get("interval"))
        caption.append(f"Blue line and band: the cross-validated estimate and its interval{interval}.")
    caption.append("Grey vertical line: the reported model.")
    figure = model_figures.concordance(model.curve, model.validation, estimate, int(model.summary["k_final"]))
    return Picture(data_uri(figure), " ".join(alt), " ".join(caption))


def _in_brackets(text: object) -> str:
    return f" ({text})" if text else ""


def _estimate(model: Model) -> tuple[float, float, float] | None:
    values = [model.summary.get(name) for name in ("c_index_cv", "c_index_cv_lower", "c_index_cv_upper")]
    numbers = [float(value) for value in values if value is not None]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def kaplan_meier(model: Model) -> Picture | None:
    """Survival of the out-of-fold risk groups, the lowest risk first."""
    if model.risk is None:
        return None
    risk = model.risk.dropna(subset=["time_days", "event", "risk_score"])
    if risk.empty:
        return None
    order = risk.groupby("group")["risk_score"].mean().sort_values().index
    risk = pd.concat([risk[risk["group"] == name] for name in order])
    p = model.summary.get("logrank_p")
    figure = model_figures.kaplan_meier(
        risk["time_days"].to_numpy(dtype=float), risk["event"].to_numpy(dtype=int), list(risk["group"]), p
    )
    counts = "; ".join(f"{name} risk {len(part)} cases" for name, part in risk.groupby("group", sort=False))
    test = f" Log-rank {model_figures.p_text(float(p))}" if p is not None else ""
    # Simon et al., Briefings in Bioinformatics 12 (2011) 203-214
    caution = (
        f"{test}, a rough guide only: the folds’ models share cases, so the groups are not independent." if test else ""
    )
    return Picture(
        data_uri(figure),
        f"Kaplan-Meier curves of the risk groups: {counts}.{test}",
        "Kaplan-Meier estimate by risk group. Every case was put into its group by models that were fitted without "
        f"it. Bands: 95 % confidence intervals (log-log); ticks: censored cases.{caution}",
    )


def forest(model: Model) -> Picture | None:
    """Hazard ratios of the final model."""
    if model.coefficients is None:
        return None
    shown = min(len(model.coefficients), model_figures.MAX_FOREST_ROWS)
    which = (
        f"the {shown} of {len(model.coefficients)} with the largest |z|" if shown < len(model.coefficients) else "all"
    )
    return Picture(
        data_uri(model_figures.forest(model.coefficients)),
        f"Hazard ratios with 95 % intervals of {shown} features; the values are in the table below.",
        f"Hazard ratios of the final model’s features ({which}). A ratio above 1 means a worse outcome for higher "
        "values.",
    )
