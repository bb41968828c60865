"""The slices that a reader looks at: written on a worker, with the tumour's size; drawn as PNG when they are shown."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK as sitk
import zarr
from PIL import Image
from zarr.codecs import BloscCodec

from prognosis_dask.arrays import BoolArray, ByteArray, NumberArray
from prognosis_dask.brain.size import TumourSize, tumour_size
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import ImageSection
from prognosis_dask.features.guard import Stopwatch, guarded
from prognosis_dask.imaging.load import SUV, load_roi
from prognosis_dask.prediction.result import SliceView
from prognosis_dask.publish import publish_folder, staging
from prognosis_dask.storage.brains import BrainStore, MaskStore
from prognosis_dask.storage.ledger import TaskResult

_OUTLINE = (255, 176, 0)
#: Soft tissue, HU: centre and width.
_CT_WINDOW = (40.0, 400.0)
#: Windows that radiologists know by name: HU of CT, SUV of PET.
_PRESETS: Final[dict[str, tuple[tuple[str, float, float], ...]]] = {
    "CT": (
        ("Soft tissue", *_CT_WINDOW),
        ("Lung", -600.0, 1500.0),
        ("Bone", 300.0, 1500.0),
        ("Liver", 60.0, 160.0),
        ("Brain", 40.0, 80.0),
    ),
    SUV: (("SUV 0 to 5", 2.5, 5.0), ("SUV 0 to 10", 5.0, 10.0), ("SUV 0 to 20", 10.0, 20.0)),
}
#: Percentiles of the non-zero voxels that become black and white where there is no unit.
_GREY = (1.0, 99.5)


@dataclass(frozen=True)
class SliceTask:
    """Where to write a case's slices (``out``), and where its image is: in its files, or prepared in ``brains``.

    ``masks`` holds the mask of a case that came without one.
    """

    out: str
    image: ImageSection
    brains: str = ""
    masks: str = ""


def write_slices(cases: tuple[Case, ...], digests: tuple[str, ...], context: SliceTask) -> list[TaskResult]:
    """Write each case's slices; the result holds the ``view`` to begin with and, of prepared brains, the ``size``."""
    return [
        guarded("slices", case, digest, partial(_slices, case, context))
        for case, digest in zip(cases, digests, strict=True)
    ]


def _slices(case: Case, context: SliceTask, watch: Stopwatch) -> dict[str, Any]:
    size: TumourSize | None = None
    unit = ""
    with watch.step("read"):
        if context.brains:
            stored = BrainStore(context.brains).read(case.case_id)
            # z-scores are below zero in the brain and zero around it: black there
            least = float(sitk.GetArrayViewFromImage(stored.image).min())
            image, mask = sitk.Mask(stored.image, stored.brain, least), stored.tumour
            size = replace(tumour_size(mask), template_mm=tuple(stored.attributes["template_mm"]))
        else:
            with MaskStore(context.masks).with_mask(case) if context.masks else nullcontext(case) as outlined:
                roi = load_roi(outlined, context.image, full=True, one_slice=True)
            image, mask, unit = roi.image, roi.mask, roi.unit
    with watch.step("write"):
        view = store_slices(image, mask, case.modality, Path(context.out), unit=unit)
    return {"view": view, "size": size}


def store_slices(image: sitk.Image, mask: sitk.Image, modality: str, out: Path, *, unit: str = "") -> SliceView:
    """Write the slices of an image and its mask, upright and with their place in mm; what a viewer begins with."""
    values = _upright(sitk.GetArrayViewFromImage(image), image)
    inside = _upright(sitk.GetArrayViewFromImage(mask) > 0, image)
    presets = _presets(values, "CT" if modality == "CT" else unit)
    _write(out, values, inside.astype(np.uint8), {"affine": upright_affine(image), "presets": presets})
    return _view(values, inside, image.GetSpacing(), modality)


def _view(
    values: NumberArray,
    inside: NumberArray,
    spacing_mm: tuple[float, float, float],
    modality: str,
) -> SliceView:
    area = inside.sum(axis=(1, 2))
    held = np.flatnonzero(area)
    centre, width = _CT_WINDOW if modality == "CT" else _window(values)
    slices, rows, columns = values.shape
    return SliceView(
        slices=slices,
        rows=rows,
        columns=columns,
        spacing_mm=spacing_mm,
        aspect=spacing_mm[0] * columns / (spacing_mm[1] * rows),
        slice=int(area.argmax()),
        first=int(held[0]) if len(held) else 0,
        last=int(held[-1]) if len(held) else slices - 1,
        centre=centre,
        width=width,
        unit="HU" if modality == "CT" else "",
    )


def _upright(values: NumberArray, image: sitk.Image) -> NumberArray:
    """Slices from the feet up, the patient's front on top and the patient's left on the right, as far as axes allow."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    for axis, own in ((2, 0), (1, 1), (0, 2)):
        if direction[own, own] < 0:
            values = np.flip(values, axis)
    return values


def upright_affine(image: sitk.Image) -> list[list[float]]:
    """From (column, row, slice) of the upright slices to mm as NIfTI counts them: right, front and top are positive."""
    spacing, direction = np.asarray(image.GetSpacing()), np.asarray(image.GetDirection()).reshape(3, 3)
    axes, origin = direction * spacing, np.asarray(image.GetOrigin())
    for axis, size in enumerate(image.GetSize()):
        if direction[axis, axis] < 0:
            origin = origin + axes[:, axis] * (size - 1)
            axes[:, axis] *= -1
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    upright: list[list[float]] = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine).tolist()
    return upright


def _presets(values: NumberArray, known: str) -> list[tuple[str, float, float]]:
    """Windows to choose from: name, centre and width; ``known`` is CT, or the values' unit."""
    if known in _PRESETS:
        return list(_PRESETS[known])
    low, high = float(values.min()), float(values.max())
    centre, width = _window(values)
    whole = ("Whole range", (low + high) / 2, max(high - low, 1e-6))
    return [("Automatic", centre, width), ("More contrast", centre, width / 2), whole]


def _window(values: NumberArray) -> tuple[float, float]:
    lit = values[values != 0]
    low, high = np.percentile(lit, _GREY).tolist() if lit.size else (0.0, 1.0)
    return (low + high) / 2, max(high - low, 1e-6)


def _write(path: Path, values: NumberArray, mask: ByteArray, attributes: dict[str, Any]) -> None:
    with staging(path) as folder:
        group = zarr.create_group(store=folder / "store", attributes=attributes)
        for name, pixels in (("image", values), ("mask", mask)):
            group.create_array(
                name,
                data=np.ascontiguousarray(pixels),
                chunks=(1, *pixels.shape[1:]),
                compressors=BloscCodec(cname="lz4", clevel=5),
            )
        publish_folder(folder / "store", path)


def slice_png(path: Path, index: int, centre: float, width: float, *, outline: bool) -> bytes:
    """One slice as PNG: grey levels of a window, with the mask's outline where it is wanted.

    Parameters
    ----------
    path
        What :func:`write_slices` wrote.
    index
        The slice; beyond the ends the nearest.
    centre, width
        In the image's own unit; the width is above zero.
    outline
        Whether the outline is drawn.
    """
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    index = min(max(index, 0), group["image"].shape[0] - 1)
    grey = _grey(group["image"][index], centre, width)
    if not outline:
        return _png(grey)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    colour[_edge(group["mask"][index] > 0)] = _OUTLINE
    return _png(colour)


def outline_png(path: Path, index: int) -> bytes:
    """The outline alone, everything else transparent: to be laid over a slice."""
    mask = zarr.open_group(path, mode="r", use_consolidated=False)["mask"][index] > 0
    edge = _edge(mask)
    pixels = np.zeros((*edge.shape, 4), np.uint8)
    pixels[edge] = (*_OUTLINE, 255)
    return _png(pixels)


def _grey(values: NumberArray, centre: float, width: float) -> ByteArray:
    width = width if math.isfinite(width) and width > 0 else 1.0
    shares = (values.astype(np.float32) - (centre - width / 2)) / width
    return (np.clip(np.nan_to_num(shares), 0, 1) * 255).astype(np.uint8)


def _edge(mask: BoolArray) -> BoolArray:
    """The mask's outermost voxels."""
    wide = np.pad(mask, 1)
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return np.asarray(mask & ~inner)


def _png(pixels: ByteArray) -> bytes:
    """8 bits a channel: grey, colour, or colour with transparency."""
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=3)
    return content.getvalue()
