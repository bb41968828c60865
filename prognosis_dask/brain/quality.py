"""Measure the quality of a stripped brain, and refuse implausible images and brains."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.orient import meaning, shared_by_turn, turned, turns
from prognosis_dask.brain.register import mutual_information
from prognosis_dask.brain.strip import Stripped, aligned, carried_distance
from prognosis_dask.brain.template import Contrast, icbm152
from prognosis_dask.errors import CaseError, Code

#: Volume of a brain with its fluid, litres; the minimum is scaled by the imaged part.
VOLUME_L = (0.75, 2.4)
#: Least share of the template's brain inside the image.
LEAST_COVERAGE = 0.25
#: Least Dice of the brain found and the template's, within the image.
LEAST_OVERLAP = 0.8
#: Bounds of a brain's size relative to the template's, as the cube root of the volumes' ratio.
SCALE = (0.75, 1.12)
#: Least mutual information with the template inside the brain, nats. Real heads had 0.08 to 0.25, noise 0.003, and a
#: head upside down 0.02.
LEAST_SHARED_TEMPLATE = 0.04
#: The orientation is accepted if mutual information with the template exceeds that of any rotation by this factor; else
#: both are fitted more carefully.
CLEAR_TURN = 1.15
#: Least contrast of the brain's edge (see :mod:`prognosis_dask.brain.head`).
LEAST_FIT = 0.3

#: Bounds of voxel sizes in MR of a head, mm, and the least extent that allows localisation, mm.
LEAST_MM, MOST_MM, LEAST_EXTENT_MM = 0.2, 10.0, 50.0


def quality(image: sitk.Image, stripped: Stripped, kind: Contrast) -> dict[str, float]:
    """The figures of one stripped image.

    ``brain_volume_l`` litres; ``template_overlap`` Dice with the template's mask where both are in the image;
    ``coverage`` share of the template's brain that the image reaches; ``scale`` size against the template;
    ``mutual_information`` nats, between image and template within the brain; ``upright`` ratio of that to its value for
    the best of 23 other orientations; ``boundary_fit`` contrast of the brain's edge, -1 to 1, NaN where no boundary was
    fitted.
    """
    found = sitk.GetArrayViewFromImage(stripped.brain) > 0
    carried = sitk.GetArrayFromImage(carried_distance(stripped.from_template, image)) > 0
    voxel_l = math.prod(image.GetSpacing()) / 1e6
    matrix = np.reshape(stripped.from_template.GetMatrix(), (3, 3))
    stretch = float(abs(np.linalg.det(matrix)))
    whole_l = float(np.count_nonzero(sitk.GetArrayViewFromImage(icbm152().brain))) / 1e6 * stretch
    both = np.count_nonzero(found) + np.count_nonzero(carried)
    return {
        "brain_volume_l": float(np.count_nonzero(found)) * voxel_l,
        "template_overlap": 2.0 * np.count_nonzero(found & carried) / both if both else 0.0,
        "coverage": float(np.count_nonzero(carried)) * voxel_l / whole_l,
        "scale": stretch ** (1 / 3),
        "mutual_information": mutual_information(image, stripped.from_template, kind),
        "boundary_fit": stripped.fit,
    }


def turned_against_header(image: sitk.Image, stripped: Stripped, kind: Contrast, figures: dict[str, float]) -> str:
    """The orientation of the head against its header, in words; empty if they agree, or if it is not a head.

    Adds ``upright`` to the figures. All 24 orientations are compared; a mirrored head cannot be detected.
    """
    shared = np.asarray(shared_by_turn(image, stripped.brain, kind))
    rival = 1 + int(shared[1:].argmax())
    figures["upright"] = float(shared[0] / shared[rival]) if shared[rival] > 0 else math.inf
    if figures["upright"] > CLEAR_TURN:
        return ""
    matrix = turns()[rival]
    about = np.asarray(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()]))
    back, brain = (turned(volume, matrix.T, about) for volume in (image, stripped.brain))
    other = aligned(back, brain, kind, stripped_before=stripped.stripped_before).from_template
    turned_back = mutual_information(back, other, kind)
    if turned_back <= max(figures["mutual_information"], LEAST_SHARED_TEMPLATE):
        return ""
    return (
        f"{meaning(matrix)} (mutual information with the template {turned_back:.3f} when turned back, "
        f"{figures['mutual_information']:.3f} as it is)"
    )


def implausible(figures: Mapping[str, float]) -> list[str]:
    """Faults of a brain, with the values seen and expected; empty if it is plausible."""
    said = []

    def expect(name: str, low: float, high: float, what: str) -> None:
        value = figures[name]
        if not math.isnan(value) and not low <= value <= high:
            said.append(f"{what} {value:.3g}, expected {low:g} to {high:g}")

    expect("coverage", LEAST_COVERAGE, math.inf, "share of the brain in the image")
    least = VOLUME_L[0] * min(1.0, figures["coverage"])
    expect("brain_volume_l", least, VOLUME_L[1], "brain volume in litres")
    expect("mutual_information", LEAST_SHARED_TEMPLATE, math.inf, "mutual information with the template")
    expect("template_overlap", LEAST_OVERLAP, 1.0, "overlap with the template's brain")
    expect("scale", *SCALE, "size against the template")
    expect("boundary_fit", LEAST_FIT, 1.0, "contrast of the brain's edge")
    return said


def refuse(name: str, said: list[str]) -> CaseError:
    """The problem of a sequence in which no plausible brain was found."""
    return CaseError(
        Code.BRAIN_NOT_FOUND,
        f"no plausible brain in {name}: {'; '.join(said)}. Look at the image; brain.skull_strip names other programs",
    )


def check_sequence(name: str, image: sitk.Image) -> None:
    """Refuse an image that cannot be MR of a head.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID`` when it is not three-dimensional, of several values a voxel, or holds NaN or infinite values;
        ``VOXEL_SIZE`` when voxels or the whole image do not suit a head; ``IMAGE_EMPTY`` when all values are equal.
    """
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or image.GetDepth() < 2:
        raise CaseError(
            Code.IMAGE_INVALID,
            f"{name} has the size {image.GetSize()} and {image.GetNumberOfComponentsPerPixel()} values a voxel, "
            "expected three dimensions, two slices or more and one value; split a time series into one file each",
        )
    spacing = np.asarray(image.GetSpacing())
    extent = spacing * image.GetSize()
    if spacing.min() < LEAST_MM or spacing.max() > MOST_MM or extent.min() < LEAST_EXTENT_MM:
        raise CaseError(
            Code.VOXEL_SIZE,
            f"{name} has voxels of {np.round(spacing, 3).tolist()} mm over {np.round(extent, 1).tolist()} mm, expected "
            f"{LEAST_MM} to {MOST_MM} mm and at least {LEAST_EXTENT_MM:g} mm of the head; correct the file's spacing",
        )
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseError(
            Code.IMAGE_INVALID,
            f"voxels of {name} that are not finite: {bad} of {values.size}; replace them before indexing",
        )
    if values.min() == values.max():
        raise CaseError(
            Code.IMAGE_EMPTY, f"every voxel of {name} holds {values.min()}; export the series again, or exclude it"
        )
