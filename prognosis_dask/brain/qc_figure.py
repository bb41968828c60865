"""The quality picture of a prepared brain: slices before and after, with outlines."""

from __future__ import annotations

import io

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray
from prognosis_dask.brain.orient import axial

_SLICES = 8
#: Colours that also differ in brightness, for colour-blind readers.
_BRAIN, _TUMOUR = "#56b4e9", "#ffb000"
_INCHES, _DPI = 1.3, 100
#: Percentiles that become black and white.
_GREY = (1.0, 99.5)


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
    from matplotlib.figure import Figure

    rows = [sitk.GetArrayFromImage(axial(image)).astype(np.float32) for image in (before, after)]
    masks = [(sitk.GetArrayFromImage(axial(mask)) > 0, colour) for mask, colour in ((brain, _BRAIN), (tumour, _TUMOUR))]
    x, y, _ = axial(before).GetSpacing()
    chosen = _chosen(masks[0][0], masks[1][0])
    height = _INCHES * rows[0].shape[1] * y / (rows[0].shape[2] * x)
    figure = Figure(figsize=(_INCHES * len(chosen), 2 * height + 0.35), dpi=_DPI, facecolor="black")
    top = 1 - 0.35 / (2 * height + 0.35)
    axes = figure.subplots(2, len(chosen), squeeze=False)
    figure.subplots_adjust(0, 0, 1, top, 0.01, 0.01)
    for line, values in zip(axes, rows, strict=True):
        shown = values[masks[0][0]] if values is rows[1] else values[values > values.min()]
        low, high = np.percentile(shown, _GREY) if shown.size else (0.0, 1.0)
        for axis, index in zip(line, chosen, strict=True):
            picture = np.where(masks[0][0][index], values[index], low) if values is rows[1] else values[index]
            axis.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=y / x, interpolation="bilinear")
            for mask, colour in masks:
                if mask[index].any():
                    axis.contour(mask[index], [0.5], colors=colour, linewidths=0.9)
            axis.axis("off")
    figure.text(0.004, 0.992, title, color="white", fontsize=8, va="top")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="black", metadata={"Software": None})
    return stream.getvalue()


def _chosen(brain: BoolArray, tumour: BoolArray) -> list[int]:
    """Slices spread over the brain; the one nearest to the tumour's largest slice is replaced by that."""
    held = np.flatnonzero(brain.any(axis=(1, 2)))
    if not len(held):
        held = np.arange(len(brain))
    spread = np.linspace(held[0], held[-1], min(_SLICES, len(held))).round().astype(int)
    if tumour.any():
        largest = int(tumour.sum(axis=(1, 2)).argmax())
        spread[np.abs(spread - largest).argmin()] = largest
    return [int(index) for index in spread]
