"""Regions of interest: pictures from the smallest to the largest, and how large they are."""

from __future__ import annotations

import math
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
from prognosis_dask.errors import CaseError, count
from prognosis_dask.features.registry import ROI, SEGMENT
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.objects.address import join
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Block, Picture, Section, Text, absent
from prognosis_dask.report.identifiers import named
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.brains import stacked
from prognosis_dask.report.words import clipped
from prognosis_dask.storage.brains import MaskStore
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.storage.rois import RoiStore

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
    store = MaskStore(join(run.arrays, "segment"))
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
