"""Pictures: a tumour's epitome, and slices with outlines, as of a brain before and after it was prepared."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray, NumberArray
from prognosis_dask.brain.intensity import around
from prognosis_dask.brain.orient import axial
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.roi import bounding_box

#: Margin around the tumour in the crop, mm; at least one slice on either side.
MARGIN_MM: Final = 10.0
#: Percentiles that become black and white.
_GREY: Final = (1.0, 99.5)
#: Width of a tile and its resolution.
_TILE_INCHES, _TILE_DPI = 2.0, 100
#: Colours that also differ in brightness, for colour-blind readers.
_BRAIN, LESION = "#56b4e9", "#ffb000"


@dataclass(frozen=True)
class TumourEpitome:
    """A summary of a tumour in images.

    Attributes
    ----------
    first, last
        Its first and last slice.
    largest
        The slice with its largest area, the lowest one of several.
    centre
        The slice nearest to its centre of mass.
    crop, crop_mask
        Image and mask (0 and 1) cut to the tumour and a margin of 10 mm, with their place in the patient.
    mosaic
        A PNG: the slices above with the tumour's outline, and the same from the crop below.
    """

    first: int
    last: int
    largest: int
    centre: int
    crop: sitk.Image
    crop_mask: sitk.Image
    mosaic: bytes

    @property
    def slices(self) -> tuple[int, ...]:
        """First, centre, largest and last slice in order, each once."""
        return tuple(sorted({self.first, self.centre, self.largest, self.last}))


def epitome(image: sitk.Image, mask: sitk.Image, note: str = "") -> TumourEpitome:
    """Choose the slices of a tumour and draw them.

    Parameters
    ----------
    image
        Three-dimensional, of one sequence.
    mask
        0 and 1, on the same grid.
    note
        A line above the mosaic: the image, and the origin of the mask.

    Raises
    ------
    CaseError
        ``MASK_EMPTY``; ``MASK_OTHER_GRID`` if image and mask differ in size.
    """
    if image.GetSize() != mask.GetSize():
        raise CaseError(
            Code.MASK_OTHER_GRID, f"the mask has {mask.GetSize()} voxels (x, y, z), the image {image.GetSize()}"
        )
    array = sitk.GetArrayFromImage(mask) > 0
    if not array.any():
        raise CaseError(Code.MASK_EMPTY, "there is no tumour to show: the mask is empty")
    area = array.sum(axis=(1, 2))
    held = np.flatnonzero(area)
    chosen = {
        "first": int(held[0]),
        "last": int(held[-1]),
        "largest": int(area.argmax()),
        "centre": round(float(np.average(np.arange(len(area)), weights=area))),
    }
    start, size = _window(mask, array)
    return TumourEpitome(
        **chosen,
        crop=sitk.RegionOfInterest(image, size, start),
        crop_mask=sitk.RegionOfInterest(mask, size, start),
        mosaic=_mosaic(image, array, chosen, start, size, note),
    )


def _window(mask: sitk.Image, array: BoolArray) -> tuple[list[int], list[int]]:
    """First index and size, (x, y, z), of the tumour's box with its margin."""
    start, size = [], []
    for (first, stop), step, whole in zip(bounding_box(array)[::-1], mask.GetSpacing(), mask.GetSize(), strict=True):
        margin = max(1, round(MARGIN_MM / step))
        low, high = max(0, first - margin), min(whole, stop + margin)
        start.append(low)
        size.append(high - low)
    return start, size


def _mosaic(
    image: sitk.Image, mask: BoolArray, chosen: dict[str, int], start: list[int], size: list[int], note: str
) -> bytes:
    """Slices with the outline above, their crops below; seen from the feet, the patient's front on top."""
    from matplotlib.figure import Figure

    values = sitk.GetArrayFromImage(image).astype(np.float64)
    lit = values[values != 0]
    low, high = np.percentile(lit, _GREY).tolist() if lit.size else (0.0, 1.0)
    values[values == 0] = low  # zero is black, even for brains whose mean is zero
    slices = sorted(set(chosen.values()))
    box = (slice(start[1], start[1] + size[1]), slice(start[0], start[0] + size[0]))
    figure = Figure((_TILE_INCHES * len(slices), _TILE_INCHES * 2.35), dpi=_TILE_DPI, facecolor="black")
    axes = figure.subplots(2, len(slices), squeeze=False)
    for column, index in enumerate(slices):
        names = ", ".join(name for name in ("first", "centre", "largest", "last") if chosen[name] == index)
        # counted from 1, as viewers do
        axes[0, column].set_title(f"slice {index + 1}: {names}", color="white", fontsize=8)
        for axis, part in ((axes[0, column], (slice(None), slice(None))), (axes[1, column], box)):
            axis.imshow(values[index][part], cmap="gray", vmin=low, vmax=max(high, low + 1e-9), aspect=_aspect(image))
            if mask[index][part].any():
                axis.contour(mask[index][part].astype(float), [0.5], colors=LESION, linewidths=0.8)
            _turn(axis, image)
    if note:
        figure.text(0.01, 0.985, note, color="white", fontsize=8, va="top")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.9 if note else 0.94, 0.02, 0.02)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _aspect(image: sitk.Image) -> float:
    return float(image.GetSpacing()[1] / image.GetSpacing()[0])


def _turn(axis: object, image: sitk.Image) -> None:
    """Show the patient's left on the right and the front on top, whatever the direction of rows and columns."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    if direction[0, 0] < 0:
        axis.invert_xaxis()  # type: ignore[attr-defined]
    if direction[1, 1] < 0:
        axis.invert_yaxis()  # type: ignore[attr-defined]
    axis.set_axis_off()  # type: ignore[attr-defined]


SLICES = 8
_INCHES, _DPI = 1.3, 100
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
