"""Quality pictures: axial slices beside each other with outlines; those of a brain before and after it was prepared."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray, NumberArray
from prognosis_dask.brain.intensity import around
from prognosis_dask.brain.orient import axial

SLICES = 8
#: Colours that also differ in brightness, for colour-blind readers.
_BRAIN, LESION = "#56b4e9", "#ffb000"
_INCHES, _DPI = 1.3, 100
#: Percentiles that become black and white.
_GREY = (1.0, 99.5)
#: What is shown around the brain, mm, and the least share of its largest slice that a slice holds.
_MARGIN_MM, _LEAST_SHARE = 25.0, 0.02


def qc_figure(before: sitk.Image, after: sitk.Image, brain: sitk.Image, tumour: sitk.Image, title: str) -> bytes:
    """A PNG of eight axial slices from bottom to top of the brain, as scanned (above) and prepared (below).

    Parameters
    ----------
    before, after
        The same sequence as it was scanned and after :func:`prognosis_dask.brain.preprocess.preprocess`.
    brain, tumour
        Masks; their outlines are blue and yellow. All on one grid.
    title
        The heading: figures and warnings. Never a patient's name.
    """
    scanned, prepared = (sitk.GetArrayFromImage(axial(image)).astype(np.float32) for image in (before, after))
    inside, drawn = (sitk.GetArrayFromImage(axial(mask)) > 0 for mask in (brain, tumour))
    (columns, lines, _), _ = around(axial(sitk.Or(brain, tumour)), _MARGIN_MM)
    box = slice(None), lines, columns
    chosen = _chosen(inside, drawn)
    low = np.percentile(prepared[inside], _GREY[0]) if inside.any() else 0.0
    rows = [
        (scanned[chosen][box], scanned[scanned > scanned.min()]),
        (np.where(inside, prepared, low)[chosen][box], prepared[inside]),
    ]
    outlines = [(inside[chosen][box], _BRAIN), (drawn[chosen][box], LESION)]
    return slices_png(rows, outlines, axial(before).GetSpacing(), title)


def slices_png(
    rows: Sequence[tuple[NumberArray, NumberArray]],
    outlines: Sequence[tuple[BoolArray, str]],
    spacing_mm: Sequence[float],
    title: str,
) -> bytes:
    """A PNG of rows of slices with the same outlines, under a title.

    Parameters
    ----------
    rows
        Each the slices, (slice, row, column), and the values whose percentiles become black and white.
    outlines
        Masks of these slices, and their colours.
    spacing_mm
        Along columns and rows, (x, y).
    title
        The heading. Never a patient's name.
    """
    from matplotlib.figure import Figure

    (number, lines, columns), (x, y) = rows[0][0].shape, spacing_mm[:2]
    height = len(rows) * _INCHES * lines * y / (columns * x)
    figure = Figure(figsize=(_INCHES * number, height + 0.35), dpi=_DPI, facecolor="black")
    axes = figure.subplots(len(rows), number, squeeze=False)
    figure.subplots_adjust(0, 0, 1, height / (height + 0.35), 0.01, 0.01)
    for line, (values, shown) in zip(axes, rows, strict=True):
        low, high = np.percentile(shown.astype(np.float64), _GREY) if shown.size else (0.0, 1.0)
        for index, axis in enumerate(line):
            axis.imshow(values[index], cmap="gray", vmin=low, vmax=high, aspect=y / x, interpolation="bilinear")
            for mask, colour in outlines:
                if mask[index].any():
                    axis.contour(mask[index], [0.5], colors=colour, linewidths=0.9)
            axis.axis("off")
    figure.text(0.004, 0.992, title, color="white", fontsize=8, va="top")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="black", metadata={"Software": None})
    return stream.getvalue()


def _chosen(brain: BoolArray, tumour: BoolArray) -> list[int]:
    """Slices spread over the brain, without specks at its ends; the one nearest to the tumour's largest is that."""
    areas = brain.sum(axis=(1, 2))
    held = np.flatnonzero(areas > _LEAST_SHARE * areas.max())
    if not len(held):
        held = np.arange(len(brain))
    spread = np.linspace(held[0], held[-1], min(SLICES, len(held))).round().astype(int)
    if tumour.any():
        largest = int(tumour.sum(axis=(1, 2)).argmax())
        spread[np.abs(spread - largest).argmin()] = largest
    return [int(index) for index in spread]
