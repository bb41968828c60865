"""Orientation: reorder axes to the patient's, and detect heads whose orientation contradicts the header."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import FloatArray
from prognosis_dask.brain.register import (
    MUTUAL_INFORMATION_BINS,
    align_head,
    coarse,
    find_head,
    fit_boundary,
    points_of,
    shrunk,
    with_rim,
)
from prognosis_dask.brain.template import Contrast, contrast, icbm152

#: Voxel width for comparing brain and template, mm.
_WIDTH_MM = 8
#: Zero padding around the brain, mm, so that every rotation is judged by the same voxels of the template.
_PAD_MM = 80.0
#: Improvement of the boundary fit needed to accept a rotation, and the fit above which none is tried.
_BETTER, _CLEAR = 0.1, 0.4
#: Half and quarter turns found in files, degrees about the patient's axes; each is tested by the boundary fit.
_USUAL = ((0, 180, 0), (180, 0, 0), (0, 0, 180), (90, 0, 0), (-90, 0, 0))
#: Initial scales relative to the template for each rotation.
_SCALES = (0.8, 1.1)


def axial(image: sitk.Image) -> sitk.Image:
    """Reorder and flip the axes to the nearest of left, posterior, superior, without resampling."""
    return sitk.DICOMOrient(image, "LPS")


def turns() -> list[FloatArray]:
    """The 24 axis-aligned rotations as matrices; the first is the identity."""
    found = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.zeros((3, 3))
        matrix[range(3), order] = signs
        if np.linalg.det(matrix) > 0:
            found.append(matrix)
    return sorted(found, key=lambda matrix: -float(np.trace(matrix)))


def turned(image: sitk.Image, matrix: FloatArray, about: FloatArray) -> sitk.Image:
    """The image rotated about a point by changing its geometry only."""
    result = sitk.Image(image)
    result.SetDirection((matrix @ np.reshape(image.GetDirection(), (3, 3))).ravel().tolist())
    result.SetOrigin((matrix @ (np.asarray(image.GetOrigin()) - about) + about).tolist())
    return result


def shared_by_turn(
    image: sitk.Image, brain: sitk.Image, kind: Contrast, *, within: sitk.Image | None = None
) -> list[float]:
    """Mutual information (nats) of template and brain for each of :func:`turns`, a similarity fitted in each.

    It is highest for the true orientation, whatever the sequence: rotation moves ventricles, cortex and white matter.
    If no rotation is clearly best, the object found is not a brain. ``within`` is the mask of what is compared: the
    brain, unless what lies around it is to count.
    """
    small = coarse(sitk.Mask(image, brain if within is None else within), float(_WIDTH_MM))
    pad = [int(np.ceil(_PAD_MM / spacing)) for spacing in small.GetSpacing()]
    small = sitk.ConstantPad(small, pad, pad, 0.0)
    centre = points_of(coarse(sitk.Cast(brain, sitk.sitkFloat32), float(_WIDTH_MM)) > 0.5).mean(axis=0)
    volume = np.count_nonzero(sitk.GetArrayViewFromImage(brain)) * np.prod(brain.GetSpacing())
    fixed, inside, middle, usual = _template(kind)
    scale = float(np.clip((volume / usual) ** (1 / 3), *_SCALES))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(MUTUAL_INFORMATION_BINS)
    method.SetMetricFixedMask(inside)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(4.0, 0.2, 25, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    found = []
    for matrix in turns():
        start = sitk.Similarity3DTransform()
        start.SetCenter(middle.tolist())
        start.SetTranslation((centre - middle).tolist())
        start.SetScale(scale)
        method.SetInitialTransform(start, inPlace=True)
        try:
            # the image is rotated, not the transform: a versor has no derivative at half a turn
            method.Execute(fixed, turned(small, matrix.T, centre))
        except RuntimeError:  # driven apart
            found.append(0.0)
        else:
            found.append(-float(method.GetMetricValue()))
    return found


def usual_turns() -> list[FloatArray]:
    """The rotations that turn heads back which lie as files are found to."""
    found = []
    for angles in _USUAL:
        turn = sitk.Euler3DTransform()
        turn.SetRotation(*np.radians(angles).tolist())
        found.append(np.rint(np.reshape(turn.GetMatrix(), (3, 3))))
    return found


def turn_by_boundary(image: sitk.Image, kind: Contrast, fit: float) -> str:
    """Orientation of a head whose boundary fits only after rotation (``fit``: before it); empty if no rotation fits."""
    about = np.asarray(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()]))
    best, found = fit + _BETTER, ""
    for matrix in usual_turns():
        _, value = fitted_anew(turned(image, matrix, about), kind)
        if value > best:
            best = value
            contrasts = f"the brain's edge has a contrast of {value:.2f} when turned back, {fit:.2f} as it is"
            found = f"{meaning(matrix.T)} ({contrasts})"
        if best > _CLEAR:
            break
    return found


def fitted_anew(image: sitk.Image, kind: Contrast) -> tuple[sitk.Similarity3DTransform, float]:
    """The template's boundary fitted to a head, whatever was found before, and its contrast."""
    return fit_boundary(image, align_head(image, find_head(image), kind))


def meaning(matrix: FloatArray) -> str:
    """Description of the orientation that a rotation corrects."""
    face, top = _towards(matrix @ (0.0, -1.0, 0.0)), _towards(matrix @ (0.0, 0.0, 1.0))
    upside_down = "upside down, " if top == "feet" else ""
    return f"{upside_down}with its top towards the {top} and its face towards the {face}"


def _towards(direction: FloatArray) -> str:
    axis = int(np.abs(direction).argmax())
    names = (("right", "left"), ("front", "back"), ("feet", "top"))[axis]
    return names[int(direction[axis] > 0)]


@lru_cache(maxsize=3)
def _template(kind: Contrast) -> tuple[sitk.Image, sitk.Image, FloatArray, float]:
    """The template on coarse voxels, the mask of those compared, the centre of its brain (mm) and its volume (mm3)."""
    brain = icbm152().brain
    inside = shrunk(with_rim(), _WIDTH_MM)
    fixed = sitk.BinShrink(contrast(kind), [_WIDTH_MM] * 3)
    middle = points_of(shrunk(brain, _WIDTH_MM)).mean(axis=0)
    return fixed, inside, middle, float(np.count_nonzero(sitk.GetArrayViewFromImage(brain)))
