"""Orientation: axial slices in the patient's own order, and heads that lie otherwise than their header says."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.boundary import fit_boundary
from prognosis_dask.brain.head import find_head
from prognosis_dask.brain.register import align_head
from prognosis_dask.brain.template import Contrast
from prognosis_dask.errors import CaseError, Code

#: How much better a turned head must fit to be believed, and the fit at which no other turn is tried.
_BETTER, _CLEAR = 0.1, 0.4
#: Turns about the patient's axes, degrees, and what they mean.
_TURNS = {
    (0, 180, 0): "upside down",
    (180, 0, 0): "upside down, facing backwards",
    (0, 0, 180): "facing backwards",
    (90, 0, 0): "with coronal slices taken for axial ones",
    (-90, 0, 0): "with coronal slices taken for axial ones, upside down",
}


def axial(image: sitk.Image) -> sitk.Image:
    """The same voxels with axes in the order and sense nearest to left, posterior, superior; nothing is resampled."""
    return sitk.DICOMOrient(image, "LPS")


def refuse_turned(name: str, image: sitk.Image, kind: Contrast, fit: float) -> None:
    """Raise where a head that did not fit the template fits it when it is turned against its header.

    A mirrored head cannot be told from a sound one.

    Raises
    ------
    CaseError
        ``ORIENTATION``, with the turn that fits.
    """
    best, found = fit + _BETTER, ""
    for angles, meaning in _TURNS.items():
        turned = _turned(image, angles)
        _, value = fit_boundary(turned, align_head(turned, find_head(turned), kind))
        if value > best:
            best, found = value, meaning
        if best > _CLEAR:
            break
    if found:
        raise CaseError(
            Code.ORIENTATION,
            f"the head in {name} lies {found} against what its header says (the brain's edge has a contrast of "
            f"{best:.2f} when turned back, {fit:.2f} as it is); correct the file's orientation",
        )


def _turned(image: sitk.Image, degrees: tuple[int, int, int]) -> sitk.Image:
    """The image turned about its middle, by its geometry alone."""
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*np.radians(degrees).tolist())
    matrix = np.rint(np.reshape(turn.GetMatrix(), (3, 3)))
    middle = np.asarray(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()]))
    result = sitk.Image(image)
    result.SetDirection((matrix @ np.reshape(image.GetDirection(), (3, 3))).ravel().tolist())
    result.SetOrigin((matrix @ (np.asarray(image.GetOrigin()) - middle) + middle).tolist())
    return result
