"""Make the clips that the networks take from the frames of a region: length, size, normalisation, sampling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from prognosis_dask.arrays import ByteArray, Float32Array, FloatArray, IntArray
from prognosis_dask.errors import CaseError, Code

#: Height and width of frames,
FRAME_SIZE = 128
#: enlarged to this,
RESIZED = 256
#: and cropped to this around the centre.
CLIP_SIZE = 224

#: A region with fewer slices shows each of them :data:`HOLD` times, as in the reference study. The network needs five
#: frames at least.
SHORT = 6
HOLD = 5

#: Clips are padded to a multiple of this many frames: a cohort of 6 to 96 slices needs 23 shapes. A larger multiple
#: gives fewer half-empty batches but more padded frames.
LENGTH_STEP = 4

#: ImageNet's mean and standard deviation per channel, used in training the network.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def clip_length(n_slices: int) -> int:
    """Frames in the clip of a region of ``n_slices`` slices.

    >>> [clip_length(n) for n in (1, 5, 6, 26)]
    [5, 25, 6, 26]
    """
    return n_slices * HOLD if n_slices < SHORT else n_slices


def filled_length(length: int) -> int:
    """Padded length of a clip in a batch of clips of several lengths.

    >>> [filled_length(n) for n in (5, 8, 9, 26)]
    [8, 8, 12, 28]
    """
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def check_frames(frames: ByteArray) -> None:
    """Refuse an array that does not hold frames of a region.

    Raises
    ------
    CaseError
        ``CLIP_INVALID`` if there is no slice, or for another shape or type.
    """
    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE) or not len(frames):
        raise CaseError(
            Code.CLIP_INVALID,
            f"the frames are {frames.dtype} of shape {frames.shape}; expected uint8 of shape "
            f"(slice, {FRAME_SIZE}, {FRAME_SIZE}) with at least one slice: make the frames again",
        )


def places(resized: int, size: int) -> tuple[IntArray, IntArray]:
    """Of a line that is resized, corners on corners, and cut to ``size``, where each pixel lies in the frame.

    Returns
    -------
    left, part
        The frame's pixel on its left, and how much the next one counts, times ``resized - 1``.
    """
    first = (resized - size) // 2
    left, part = np.divmod(np.arange(first, first + size) * (FRAME_SIZE - 1), resized - 1)
    return left, part


@lru_cache(maxsize=8)
def _weights(resized: int, size: int) -> FloatArray:
    left, part = places(resized, size)
    weights = np.zeros((size, FRAME_SIZE))
    kept = np.arange(size)
    weights[kept, left] = resized - 1 - part
    # the last pixel has no neighbour, and needs none
    weights[kept, np.minimum(left + 1, FRAME_SIZE - 1)] += part
    return weights


def resize(frames: ByteArray, resized: tuple[int, int], size: tuple[int, int]) -> ByteArray:
    """Frames (..., 128, 128) resized linearly, corners on corners, and cut to the ``size`` around the centre; uint8.

    Halves are rounded up. Of a twofold size it is what ``scipy.ndimage.zoom(frame, 2, order=1)`` gives.
    """
    scale = (resized[0] - 1) * (resized[1] - 1)
    # whole numbers that the type holds, in any order of summation
    kind = np.float32 if 255 * scale < 2**24 else np.float64
    rows, columns = (_weights(*lengths).astype(kind) for lengths in zip(resized, size, strict=True))
    sums = (rows @ frames.astype(kind) @ columns.T).astype(np.int32 if kind == np.float32 else np.int64)
    grey: ByteArray = ((2 * sums + scale) // (2 * scale)).astype(np.uint8)
    return grey


def enlarge(frames: ByteArray) -> ByteArray:
    """Frames as the study's network sees them: (..., 128, 128) to (..., 224, 224), both uint8."""
    return resize(frames, (RESIZED, RESIZED), (CLIP_SIZE, CLIP_SIZE))


@dataclass(frozen=True)
class ClipRule:
    """How a network's input is made from the frames of a region.

    Attributes
    ----------
    frames
        Frames of every clip, sampled evenly over the region, with repeats if it has fewer slices. Zero: every slice
        once, see :func:`prognosis_dask.networks.clips.clip_length`.
    slow_step
        A slow path takes every ``slow_step``-th of these frames again, appended to them. Zero: none.
    resized
        Height and width to which frames are resized linearly, with aligned corners.
    size
        Height and width of the crop around the centre.
    mean, std
        Per channel, of grey levels from 0 to 1. All channels show the same picture.
    """

    frames: int = 0
    slow_step: int = 0
    resized: tuple[int, int] = (RESIZED, RESIZED)
    size: tuple[int, int] = (CLIP_SIZE, CLIP_SIZE)
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def length(self, n_slices: int) -> int:
        """Frames in the clip of a region of ``n_slices`` slices."""
        return len(self.order(n_slices))

    def order(self, n_slices: int) -> npt.NDArray[np.intp]:
        """The slice that each frame of the clip shows.

        >>> ClipRule(frames=4, slow_step=2).order(8).tolist()
        [1, 3, 5, 7, 1, 5]
        """
        count = self.frames or clip_length(n_slices)
        # the middle of each of `count` equal parts of the region
        order = (2 * np.arange(count) + 1) * n_slices // (2 * count)
        return np.concatenate([order, order[:: self.slow_step]]) if self.slow_step else order

    def make(self, frames: ByteArray) -> Float32Array:
        """Make the network's input: (slice, 128, 128) uint8 to (channel, T, height, width) float32.

        Raises
        ------
        CaseError
            ``CLIP_INVALID`` if there is no slice, or for another shape or type.
        """
        check_frames(frames)
        return np.take(self.levels(), resize(frames, self.resized, self.size)[self.order(len(frames))], axis=1)

    def levels(self) -> Float32Array:
        """The normalised value of each grey level, for each channel: (channel, 256)."""
        levels = (np.arange(256) / 255 - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return np.asarray(levels, np.float32)
