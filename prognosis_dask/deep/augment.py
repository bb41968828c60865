"""Small changes of a volume that leave its grade as it is, so that a few cases teach more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: The most that a volume is turned in the axial plane, in degrees.
ROTATION = 10.0
#: The most that intensities are stretched, and shifted in standard deviations of the volume.
CONTRAST = 0.1
SHIFT = 0.1


def augment(volume: Floats, rng: np.random.Generator) -> Floats:
    """One volume (slice, row, column), flipped left to right or not, turned, and changed in brightness and contrast.

    Turning is in the axial plane only, since slices are thicker than pixels are wide. Zeros stay zeros: they are what
    lies outside the brain, and the slices that were appended.
    """
    if rng.random() < 0.5:
        volume = volume[:, :, ::-1]
    volume = rotate(volume, rng.uniform(-ROTATION, ROTATION))
    stretch = np.float32(1 + rng.uniform(-CONTRAST, CONTRAST))
    shift = np.float32(rng.uniform(-SHIFT, SHIFT) * volume.std())
    return np.where(volume == 0, np.float32(0), volume * stretch + shift)


def rotate(volume: Floats, degrees: float) -> Floats:
    """Turn every slice about its middle, linear in between; what comes from outside is zero."""
    from scipy.ndimage import affine_transform

    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    middle = (np.array(volume.shape) - 1) / 2
    turned = affine_transform(volume, turn, offset=middle - turn @ middle, order=1, output=np.float32)
    return np.asarray(turned, np.float32)
