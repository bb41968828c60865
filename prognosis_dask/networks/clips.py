"""Make the clips that the networks take from the frames of a region: length, size, normalisation, sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prognosis_dask.arrays import ByteArray, Float32Array, FloatArray
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


def make_clip(frames: ByteArray) -> Float32Array:
    """Make the network's input from the frames of a region.

    Each frame is enlarged twofold as ``scipy.ndimage.zoom(frame, 2, order=1)`` does (linear, corners on corners, the
    result rounded to uint8), cut to its central 224 x 224 pixels, divided by 255 and normalised by ImageNet's mean and
    standard deviation, in three equal channels. Chen et al., Medical Physics 2023.

    Parameters
    ----------
    frames
        (slice, 128, 128), uint8.

    Returns
    -------
    ndarray
        (3, T, 224, 224), float32, where T is :func:`clip_length` of the number of slices.

    Raises
    ------
    CaseError
        ``CLIP_INVALID`` if there is no slice, or for another shape or type.
    """
    check_frames(frames)
    grey = enlarge(frames)
    if len(grey) < SHORT:
        grey = np.repeat(grey, HOLD, axis=0)
    return np.take(_LEVELS, grey, axis=1)


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


def _weights() -> Float32Array:
    """Linear weights, in 1/255ths, of the 128 pixels of a line for the 224 kept of its 256."""
    first = (RESIZED - CLIP_SIZE) // 2
    kept = np.arange(first, first + CLIP_SIZE)
    left, part = np.divmod(kept * (FRAME_SIZE - 1), RESIZED - 1)
    weights = np.zeros((CLIP_SIZE, FRAME_SIZE), np.float32)
    weights[np.arange(CLIP_SIZE), left] = RESIZED - 1 - part
    weights[np.arange(CLIP_SIZE), left + 1] += part
    return weights


_WEIGHTS = _weights()

#: The normalised value of each grey level, for each channel: (3, 256).
_LEVELS = ((np.arange(256) / 255 - np.array(MEAN)[:, None]) / np.array(STD)[:, None]).astype(np.float32)


def enlarge(frames: ByteArray) -> ByteArray:
    """Frames as a clip shows them: (..., 128, 128) to (..., 224, 224), both uint8."""
    # The weights are whole numbers and the largest sum, 255 ** 3, is below 2 ** 24: float32 products are exact in
    # any order of summation. 255 ** 2 is odd, so no value lies halfway and the rounding is never in doubt.
    scale = (RESIZED - 1) ** 2
    sums = _WEIGHTS @ frames.astype(np.float32) @ _WEIGHTS.T
    return ((2 * sums.astype(np.int32) + scale) // (2 * scale)).astype(np.uint8)


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
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (FRAME_SIZE,) * 2 or not len(frames):
            raise CaseError(
                Code.CLIP_INVALID,
                f"the frames are {frames.dtype} of shape {frames.shape}; expected uint8 of shape "
                f"(slice, {FRAME_SIZE}, {FRAME_SIZE}) with at least one slice: make the frames again",
            )
        levels = (np.arange(256) / 255 - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return np.take(levels.astype(np.float32), self._resize(frames)[self.order(len(frames))], axis=1)

    def _resize(self, frames: ByteArray) -> ByteArray:
        # whole numbers below 2 ** 53: exact in any order of summation; halves are rounded up
        rows, columns = (_weights_of_clip_rules(*lengths) for lengths in zip(self.resized, self.size, strict=True))
        scale = (self.resized[0] - 1) * (self.resized[1] - 1)
        sums = (rows @ frames.astype(np.float64) @ columns.T).astype(np.int64)
        return ((2 * sums + scale) // (2 * scale)).astype(np.uint8)


def _weights_of_clip_rules(resized: int, size: int) -> FloatArray:
    """Linear weights, times ``resized - 1``, of a line's 128 pixels for each of the ``size`` kept."""
    first = (resized - size) // 2
    left, part = np.divmod(np.arange(first, first + size) * (FRAME_SIZE - 1), resized - 1)
    weights = np.zeros((size, FRAME_SIZE))
    kept = np.arange(size)
    weights[kept, left] = resized - 1 - part
    # the last pixel has no neighbour, and needs none
    weights[kept, np.minimum(left + 1, FRAME_SIZE - 1)] += part
    return weights
