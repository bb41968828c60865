"""The frames of a segmentation as a volume on their own grid, for masks that have to be resampled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from prognosis_dask.errors import CaseError, Code

#: Frames closer than this, in mm, lie in one plane; this much may their distances differ and their rows be apart.
SAME_MM = 0.01


@dataclass(frozen=True)
class Frame:
    """One frame of a wanted segment: its index in the pixel data and the geometry of its pixels.

    ``row`` and ``column`` are the vectors, in mm, from one column and from one row to the next. ``between_mm`` is the
    distance of the frames as the file declares it, ``thick_mm`` their thickness; None where it does not.
    """

    index: int
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    between_mm: float | None
    thick_mm: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the frame."""
        across = np.cross(self.row, self.column)
        unit: NDArray[np.float64] = across / np.linalg.norm(across)
        return unit


def frame_distance(frames: Sequence[Frame]) -> float | None:
    """How far apart the file's frames are: declared, else as thick as they are; None where nothing says it.

    Frames without a voxel are left out of files, so that positions alone do not tell a gap from a thick slice.
    """
    steps = frame_steps(frames)
    declared = frames[0].between_mm or frames[0].thick_mm
    if declared is None or not len(steps):
        return declared
    return min(declared, float(steps.min()))


def frame_steps(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """The distances, in mm, between the planes that have a frame, in order along the first one's normal."""
    heights = np.sort([float(frame.position @ frames[0].normal) for frame in frames])
    steps: NDArray[np.float64] = np.diff(heights)
    return steps[steps > SAME_MM]


def stack_frames(decoded: Iterable[tuple[Frame, NDArray[np.bool_]]]) -> sitk.Image:
    """The frames as one image, 0 and 1; those of one plane are merged, planes without a frame are empty.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE`` when the frames do not lie on one lattice, or nothing says how far apart they are.
    """
    frames, pixels = (list(items) for items in zip(*decoded, strict=True))
    first = frames[0]
    normal = first.normal
    offsets = np.array([frame.position - first.position for frame in frames])
    heights = offsets @ normal
    step = _step(frames)
    places = (heights - heights.min()) / step
    planes = np.rint(places).astype(int)
    turned = max(max(np.abs(f.row - first.row).max(), np.abs(f.column - first.column).max()) for f in frames)
    sideways = np.abs(offsets - np.outer(heights, normal)).max()
    shapes = {frame.shape for frame in pixels}
    if np.abs(places - planes).max() * step > SAME_MM or max(turned, sideways) > SAME_MM or len(shapes) > 1:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"the segmentation's {len(frames)} frames are no stack {step:.3f} mm apart, which resampling needs: they "
            f"lie up to {np.abs(places - planes).max() * step:.3f} mm beside such planes, {sideways:.3f} mm beside "
            f"one line",
        )
    volume: NDArray[np.uint8] = np.zeros((int(planes.max()) + 1, *shapes.pop()), dtype=np.uint8)
    for plane, frame in zip(planes, pixels, strict=True):
        volume[plane] |= frame.astype(np.uint8)
    image = sitk.GetImageFromArray(volume)
    steps = np.stack([first.row, first.column, normal * step], axis=1)
    spacing = np.linalg.norm(steps, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((first.position + heights.min() * normal).tolist())
    image.SetDirection((steps / spacing).ravel().tolist())
    return image


def _step(frames: Sequence[Frame]) -> float:
    """The distance of the lattice's planes: the declared one where the frames lie on it, else their smallest one."""
    steps = frame_steps(frames)
    for declared in (frames[0].between_mm, frames[0].thick_mm):
        if declared and (np.abs(steps / declared - np.rint(steps / declared)) * declared <= SAME_MM).all():
            return declared
    if not len(steps):
        raise CaseError(
            Code.MASK_UNREADABLE,
            "the segmentation's frames lie in one plane, and nothing says how thick it is (SliceThickness): it cannot "
            "be resampled",
        )
    return float(steps.min())
