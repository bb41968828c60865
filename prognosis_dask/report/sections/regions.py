"""Preparation of the brains, and the regions of interest: what was found, how sure it is, pictures and sizes."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prognosis_dask.arrays import BoolArray, ByteArray, FloatArray
from prognosis_dask.brain.preprocess import (
    LEAST_AGREEMENT,
    LEAST_COVERAGE,
    LEAST_FIT,
    LEAST_OVERLAP,
    LEAST_SHARED_TEMPLATE,
    MOST_BEYOND_ML,
    MOST_MISSING_ML,
    MOST_MOVED_MM,
    MOST_OFF_CENTRE_MM,
    SCALE,
    SKULL_MM,
    SKULL_T2_MM,
    VOLUME_L,
)
from prognosis_dask.errors import CaseError, count
from prognosis_dask.features.registry import BRAIN, ROI, SEGMENT
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.objects.address import join
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import png_address, png_size, svg
from prognosis_dask.report.content import Block, Picture, Rows, Section, Table, Text, absent
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.words import clipped, listed, named, number
from prognosis_dask.storage.brains import BrainStore, MaskStore
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.storage.rois import RoiStore

#: So many of the least sure cases are shown.
_SHOWN = 3
_LABEL_HEIGHT = 34
#: What is measured of every case, how it is called, and what is accepted.
_FIGURES = {
    "brain_volume_l": ("brain volume (L)", f"{VOLUME_L[0]:g} to {VOLUME_L[1]:g}, less where part is imaged"),
    "coverage": ("share of the brain in the image", f"at least {LEAST_COVERAGE:g}"),
    "template_overlap": ("overlap with the template’s brain (Dice)", f"at least {LEAST_OVERLAP:g}"),
    "scale": ("size against the template", f"{SCALE[0]:g} to {SCALE[1]:g}"),
    "mutual_information": ("mutual information with the template (nats)", f"at least {LEAST_SHARED_TEMPLATE:g}"),
    "upright": ("the same against the best of 23 other turns (ratio)", "above 1"),
    "agreement": ("overlap of two methods’ brains (Dice)", f"at least {LEAST_AGREEMENT:g}"),
    "boundary_fit": ("contrast of the brain’s edge (−1 to 1)", f"at least {LEAST_FIT:g}"),
    "skull_mm": (
        "from the mask to the skull (mm)",
        f"{SKULL_MM[0]:g} to {SKULL_MM[1]:g}; T2 {SKULL_T2_MM[0]:g} to {SKULL_T2_MM[1]:g}".replace("-", "−"),
    ),
    "off_centre_mm": ("the mask to one side (mm)", f"up to {MOST_OFF_CENTRE_MM:g}"),
    "missing_ml": ("the template’s brain that the mask lacks (mL)", f"up to {MOST_MISSING_ML:g}"),
    "beyond_ml": ("the mask far outside the template’s brain (mL)", f"up to {MOST_BEYOND_ML:g}"),
}
_SOURCES = {
    "drawn": "outlined on every slice",
    "interpolated": "outlined on some slices, completed by shape between them",
    "automatic": "found automatically",
}


def brains(run: RunFolder) -> Section:
    """What the preparation measured, where the tumours' masks come from, and pictures of the least sure cases."""
    found = quality_table(run)
    blocks: list[Block] = [absent("No brain was prepared.")]
    if len(found):
        blocks = [Text(_described(run, found)), *_warning(found), _figures(found)]
        blocks += [picture] if (picture := _least_sure(run, found)) else []
    return Section("brains", "Preparation of the brains", blocks)


def quality_table(run: RunFolder) -> pd.DataFrame:
    """A row per prepared case: the figures of its quality, and where its tumour's mask comes from."""
    done = {k: result.values for k, result in run.results.get(BRAIN.name, {}).items() if result.problem is None}
    moved = sorted({name for values in done.values() for name in values if name.startswith("moved_mm_")})
    names = [*_FIGURES, *moved, "stripped_before", "tumour_source", "tumour_confidence"]
    rows = [{"case_id": case_id, **{name: values.get(name) for name in names}} for case_id, values in done.items()]
    return pd.DataFrame(rows, columns=["case_id", *names]).sort_values("case_id", ignore_index=True)


def _described(run: RunFolder, found: pd.DataFrame) -> str:
    prepared = set(found["case_id"])
    sequences = Counter(name for case in run.cases if case.case_id in prepared for name in case.sequences)
    held = (
        f" Their sequences: {listed([f'{name} in {n}' for name, n in sequences.most_common()])}." if sequences else ""
    )
    sources = Counter(found["tumour_source"])
    tumours = listed([f"{sources[source]} {words}" for source, words in _SOURCES.items() if sources[source]])
    stripped = int(np.sum(found["stripped_before"].eq(True)))
    before = f" {count(stripped, 'case')} came without skull." if stripped else ""
    return (
        f"{count(len(found), 'case')} prepared.{held}{before} Tumours: {tumours}. brain/ holds every case’s images, "
        "masks and pictures; check quality.png before you rely on a figure."
    )


def _warning(found: pd.DataFrame) -> list[Block]:
    automatic = int(found["tumour_source"].eq("automatic").sum())
    if not automatic:
        return []
    return [Text(f"{count(automatic, 'tumour')} found automatically and not reviewed: look at each one.", "warning")]


def _figures(found: pd.DataFrame) -> Table:
    rows = [(label, *_median_and_range(found[name]), expected) for name, (label, expected) in _FIGURES.items()]
    moved = [name for name in found if str(name).startswith("moved_mm_")]
    rows += [
        (
            f"shift of {str(name).removeprefix('moved_mm_')} by registration (mm)",
            *_median_and_range(found[name]),
            f"up to {MOST_MOVED_MM:g}",
        )
        for name in moved
    ]
    return Table(
        "Quality of the preparation of the cases that passed it. A value outside the accepted range ends the case with "
        "a problem code.",
        ("Figure", "Median", "Least", "Greatest", "Accepted"),
        "lnnnl",
        [Rows("", rows)],
    )


def _median_and_range(column: pd.Series[float]) -> tuple[str, str, str]:
    values = pd.to_numeric(column).dropna()
    if values.empty:
        return "–", "–", "–"
    return number(float(values.median())), number(float(values.min())), number(float(values.max()))


def _least_sure(run: RunFolder, found: pd.DataFrame) -> Picture | None:
    """The pictures of the cases whose brain agrees least with the template's."""
    ranked = found.sort_values(["template_overlap", "upright"], na_position="last", kind="stable")
    store = BrainStore(join(run.arrays, BrainStore.stage))
    found_pictures = [(case_id, store.picture(case_id)) for case_id in ranked["case_id"][:_SHOWN]]
    shown = [(case_id, picture) for case_id, picture in found_pictures if picture is not None]
    if not shown:
        return None
    return Picture(
        "brains",
        stacked(shown),
        found.assign(case_id=found["case_id"].map(named)),
        f"Slices of {len(shown)} heads before and after the preparation, with the outlines of brain and tumour: "
        f"{listed([named(case_id) for case_id, _ in shown])}.",
        f"{count(len(shown), 'case').capitalize()} whose brain agrees least with the template’s: slices from the "
        "brain’s foot to its top as scanned (above) and prepared (below), brain in blue, tumour in yellow. Is the "
        "brain whole, the skull gone, the outline where the tumour is? The patient’s left is on the right. The CSV "
        "holds all cases.",
    )


def stacked(shown: Sequence[tuple[str, bytes]]) -> str:
    """The pictures under one another, each below its case's name."""
    parts, top, widest = [], 0, 1
    for case_id, content in shown:
        width, height = png_size(content)
        parts.append(
            f'<text y="{top + 22}" font-family="DejaVu Sans, sans-serif" font-size="18">'
            f"{html.escape(named(case_id))}</text>"
            f'<image y="{top + _LABEL_HEIGHT}" width="{width}" height="{height}" href="{png_address(content)}"/>'
        )
        top, widest = top + _LABEL_HEIGHT + height, max(widest, width)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {widest} {top}">{"".join(parts)}</svg>'


#: Regions shown, spread over the cohort by volume.
MAX_THUMBNAILS = 8
_MARGIN_MM = 15.0
_COLUMNS = 4
_BAR_MM = 20


@dataclass(frozen=True)
class Thumbnail:
    """One slice of one region of interest, for looking at.

    Attributes
    ----------
    case_id, volume_ml
        Whose, and how large the whole region is.
    frame
        Grey values, (row, column), uint8.
    mask
        The region on the same pixels, boolean.
    spacing_mm
        Distance of neighbouring columns; None where it is not known.
    """

    case_id: str
    volume_ml: float
    frame: ByteArray
    mask: BoolArray
    spacing_mm: float | None


def regions(run: RunFolder) -> Section:
    """Pictures of the regions of interest, and their size."""
    return Section(
        "regions",
        "Regions of interest",
        [
            *automatic(run),
            gallery(run) or absent("No region of interest was stored, so there is none to show."),
            sizes(run) or absent("The regions’ volumes are not known."),
        ],
    )


def automatic(run: RunFolder) -> list[Block]:
    """What a network outlined: how many regions, by which network, and pictures to look at; empty where none did."""
    found = [k for k, result in run.results.get(SEGMENT.name, {}).items() if _is_automatic(result)]
    if not found:
        return []
    done = sum(result.problem is None for result in run.results[SEGMENT.name].values())
    network = Path(str((run.info.get(SEGMENT.name) or {}).get("network", ""))).name
    warning = Text(
        f"{len(found)} of {count(done, 'region')} were outlined by a network ({network}) and "
        "not reviewed: look at each one. segment/ holds every mask and a picture of it, quality.png.",
        "warning",
    )
    store = MaskStore(join(run.arrays, MaskStore.stage))
    ranked = sorted(found, key=lambda case_id: per_case(run, "volume_ml").get(case_id, 0.0))
    chosen = dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]])
    pictures = [(case_id, store.picture(case_id)) for case_id in chosen]
    shown = [(case_id, picture) for case_id, picture in pictures if picture is not None]
    if not shown:
        return [warning]
    return [
        warning,
        Picture(
            "automatic_regions",
            stacked(shown),
            pd.DataFrame({"case_id": [named(case_id) for case_id in found]}),
            f"Slices of {count(len(shown), 'region')} with the outline that the network drew.",
            "The smallest, the median and the largest region that the network outlined: slices from its foot to its "
            "top. The patient’s left is on the right. The CSV names all cases whose region is automatic.",
        ),
    ]


def _is_automatic(result: TaskResult) -> bool:
    return result.problem is None and result.values.get("mask_source") == "automatic"


def gallery(run: RunFolder) -> Picture | None:
    """The largest slice of up to eight regions, from the smallest to the largest volume."""
    if run.rois is None:
        return None
    with ThreadPoolExecutor(MAX_THUMBNAILS) as threads:  # from a bucket they come at once
        found = threads.map(partial(_read_thumbnail, run.rois), _spread(run))
        thumbnails = [one for one in found if one is not None]
    if not thumbnails:
        return None
    columns = ["case_id", "volume_ml", "spacing_mm"]
    return Picture(
        "regions",
        _draw_gallery(thumbnails),
        pd.DataFrame([(named(t.case_id), t.volume_ml, t.spacing_mm) for t in thumbnails], columns=columns),
        f"Image slices of {len(thumbnails)} regions of interest with the outline of the mask: "
        + ", ".join(f"{named(t.case_id)} ({v})" for t, v in zip(thumbnails, _volumes(thumbnails), strict=True)),
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


def _read_thumbnail(rois: RoiStore, one: tuple[str, float]) -> Thumbnail | None:
    case_id, volume_ml = one
    try:
        return _thumbnail(case_id, volume_ml, rois.read_roi(case_id))
    except CaseError:
        return None  # a damaged entry of the store; resume finds and redoes it


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


@svg
def _draw_gallery(thumbnails: Sequence[Thumbnail]) -> Figure:
    """Slices with the region's outline along the pixels' edges, and a bar of 20 mm."""
    rows = math.ceil(len(thumbnails) / _COLUMNS)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.95 * rows)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, thumbnail, volume in zip(grid, thumbnails, _volumes(thumbnails), strict=False):
        _draw_thumbnail(axes, thumbnail, volume)
    for axes in grid[len(thumbnails) :]:
        axes.set_axis_off()
    return figure


def _volumes(thumbnails: Sequence[Thumbnail]) -> list[str]:
    """Their volumes, all with the decimals that give the smallest three digits: at most two, unless that is too few."""
    smallest = min(thumbnail.volume_ml for thumbnail in thumbnails)
    exponent = math.floor(math.log10(smallest)) if smallest > 0 else 0
    decimals = max(0, min(2, 2 - exponent), -exponent)
    return [f"{thumbnail.volume_ml:.{decimals}f} mL" for thumbnail in thumbnails]


def _draw_thumbnail(axes: Axes, thumbnail: Thumbnail, volume: str) -> None:
    rows, columns = thumbnail.frame.shape
    axes.imshow(thumbnail.frame, cmap="gray", vmin=0, vmax=255)
    axes.add_collection(LineCollection(list(outline(thumbnail.mask)), colors=canvas.YELLOW, linewidths=1))
    if thumbnail.spacing_mm:
        length = _BAR_MM / thumbnail.spacing_mm
        x, y = columns * 0.05, rows * 0.94
        for colour, width in (("black", 4.0), ("white", 2.2)):  # seen on light and on dark
            axes.plot([x, x + length], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.set_axis_off()
    axes.set_title(f"{clipped(named(thumbnail.case_id), 26)}\n{volume}", fontsize=7)


def outline(mask: BoolArray) -> FloatArray:
    """The edges between pixels inside and outside of a mask: (segment, end, x or y), each one pixel long."""
    padded = np.pad(mask, 1)
    across_r, across_c = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    down_r, down_c = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    across = np.stack([across_c - 0.5, across_r - 0.5, across_c + 0.5, across_r - 0.5], axis=1)
    down = np.stack([down_c - 0.5, down_r - 0.5, down_c - 0.5, down_r + 0.5], axis=1)
    segments: FloatArray = np.concatenate([across, down]).reshape(-1, 2, 2)
    return segments


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
        _draw_sizes(volume, slices),
        _per_case_table(run, "volume_ml", "n_slices"),
        f"Histograms of the volume (median {np.median(finite):.3g} mL, {finite.min():.3g} to {finite.max():.3g} mL) "
        f"and of the number of slices (median {np.nanmedian(slices):.0f}) of {finite.size} regions.",
        f"Size of the {finite.size} regions of interest: volume, and number of slices that hold the region.{note}",
    )


def per_case(run: RunFolder, name: str) -> dict[str, float]:
    """One of the ROI stage's numbers (``volume_ml``, ``n_slices``, ``lesion_cut``) for each case that has it."""
    values = {case_id: result.values.get(name) for case_id, result in run.results.get(ROI.name, {}).items()}
    return {case_id: float(value) for case_id, value in values.items() if isinstance(value, int | float)}


def _per_case_table(run: RunFolder, *names: str) -> pd.DataFrame:
    columns = {name: pd.Series(per_case(run, name), dtype=float) for name in names}
    return pd.DataFrame(columns).rename(index=named).rename_axis("case_id").reset_index()


@svg
def _draw_sizes(volume_ml: FloatArray, n_slices: FloatArray) -> Figure:
    """How large the regions are: volume on a logarithmic axis, and the number of slices."""
    figure = canvas.new_figure(canvas.FULL_WIDTH, 2.3)
    left, right = figure.subplots(1, 2, sharey=True)
    volume = volume_ml[volume_ml > 0]
    low, high = (volume.min(), volume.max()) if volume.size else (1.0, 10.0)
    if high < low * 1.01:
        low, high = low / 2, high * 2
    bins = 24 if volume.size > 200 else 12
    left.hist(volume, bins=np.geomspace(low, high, bins + 1), color=canvas.BLUE, edgecolor="white", linewidth=0.5)
    canvas.log_axis(left)
    left.set(xlabel="ROI volume (mL), log scale", ylabel="Cases")
    slices = n_slices[np.isfinite(n_slices)]
    top = slices.max() if slices.size else 1
    width = max(1, math.ceil(top / bins))
    edges = np.arange(0.5, top + width + 0.5, width)
    right.hist(slices, bins=edges, color=canvas.BLUE, edgecolor="white", linewidth=0.5)
    right.set(xlabel="Slices that hold the ROI")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        canvas.light_grid(axes, "y")
    return figure
