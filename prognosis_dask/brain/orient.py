"""Orientation: axial slices in the patient's own order, and heads that lie otherwise than their header says."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import FloatArray
from prognosis_dask.brain.head import coarse, find_head, fit_boundary, points_of
from prognosis_dask.brain.register import MUTUAL_INFORMATION_BINS, align_head, shrunk
from prognosis_dask.brain.template import Contrast, contrast, icbm152

#: Brain and template are compared on voxels of this width, mm; the rim around the template's brain that counts too, mm.
_WIDTH_MM, _RIM_MM = 8, 4
#: Zeros around the brain, mm, so that every turn is judged by the same voxels of the template.
_PAD_MM = 80.0
#: How much better the boundary must fit a turned head to be believed, and the fit at which no other turn is tried.
_BETTER, _CLEAR = 0.1, 0.4
#: Half and quarter turns that files are met in, degrees about the patient's axes; each is tried by its boundary.
_USUAL = ((0, 180, 0), (180, 0, 0), (0, 0, 180), (90, 0, 0), (-90, 0, 0))
#: Sizes against the template that a turn starts with.
_SCALES = (0.8, 1.1)


def axial(image: sitk.Image) -> sitk.Image:
    """The same voxels with axes in the order and sense nearest to left, posterior, superior; nothing is resampled."""
    return sitk.DICOMOrient(image, "LPS")


def turns() -> list[FloatArray]:
    """The 24 ways in which a head can lie along the axes, as matrices; the first leaves it as it is."""
    found = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.zeros((3, 3))
        matrix[range(3), order] = signs
        if np.linalg.det(matrix) > 0:
            found.append(matrix)
    return sorted(found, key=lambda matrix: -float(np.trace(matrix)))


def turned(image: sitk.Image, matrix: FloatArray, about: FloatArray) -> sitk.Image:
    """The image turned about a point, by its geometry alone."""
    result = sitk.Image(image)
    result.SetDirection((matrix @ np.reshape(image.GetDirection(), (3, 3))).ravel().tolist())
    result.SetOrigin((matrix @ (np.asarray(image.GetOrigin()) - about) + about).tolist())
    return result


def shared_by_turn(image: sitk.Image, brain: sitk.Image, kind: Contrast) -> list[float]:
    """Mutual information (nats) of template and brain for each of :func:`turns`, a similarity fitted in each.

    It knows nothing of how the brain was found, and is highest for the way in which the head lies, whatever the
    sequence: ventricles, cortex and white matter lie elsewhere when a brain is turned. Where no turn stands out, what
    was found is no brain.
    """
    small = coarse(sitk.Mask(image, brain), float(_WIDTH_MM))
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
            # the image is turned back, not the transform: a versor has no derivative at half a turn
            method.Execute(fixed, turned(small, matrix.T, centre))
        except RuntimeError:  # driven apart
            found.append(0.0)
        else:
            found.append(-float(method.GetMetricValue()))
    return found


def turn_by_boundary(image: sitk.Image, kind: Contrast, fit: float) -> str:
    """How a head lies whose boundary did not fit (``fit``) and does when turned back; empty where no turn fits."""
    about = np.asarray(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()]))
    best, found = fit + _BETTER, ""
    for angles in _USUAL:
        turn = sitk.Euler3DTransform()
        turn.SetRotation(*np.radians(angles).tolist())
        matrix = np.rint(np.reshape(turn.GetMatrix(), (3, 3)))
        back = turned(image, matrix, about)
        _, value = fit_boundary(back, align_head(back, find_head(back), kind))
        if value > best:
            best = value
            contrasts = f"the brain's edge has a contrast of {value:.2f} when turned back, {fit:.2f} as it is"
            found = f"{meaning(matrix.T)} ({contrasts})"
        if best > _CLEAR:
            break
    return found


def meaning(matrix: FloatArray) -> str:
    """How a head lies that a turn has to be undone of."""
    face, top = _towards(matrix @ (0.0, -1.0, 0.0)), _towards(matrix @ (0.0, 0.0, 1.0))
    upside_down = "upside down, " if top == "feet" else ""
    return f"{upside_down}with its top towards the {top} and its face towards the {face}"


def _towards(direction: FloatArray) -> str:
    axis = int(np.abs(direction).argmax())
    names = (("right", "left"), ("front", "back"), ("feet", "top"))[axis]
    return names[int(direction[axis] > 0)]


@lru_cache(maxsize=2)
def _template(kind: Contrast) -> tuple[sitk.Image, sitk.Image, FloatArray, float]:
    """The template on coarse voxels, where they count, the middle of its brain (mm) and its volume (mm3)."""
    brain = icbm152().brain
    inside = shrunk(sitk.BinaryDilate(brain, [_RIM_MM] * 3), _WIDTH_MM)
    fixed = sitk.BinShrink(contrast(kind), [_WIDTH_MM] * 3)
    middle = points_of(shrunk(brain, _WIDTH_MM)).mean(axis=0)
    return fixed, inside, middle, float(np.count_nonzero(sitk.GetArrayViewFromImage(brain)))
