"""What each network wants its clip to be: frames, size, normalisation, slow and fast sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prognosis_dask.deep.clips import CLIP_SIZE, FRAME_SIZE, MEAN, RESIZED, STD, clip_length
from prognosis_dask.errors import CaseError, Code


@dataclass(frozen=True)
class ClipRule:
    """From a region's frames to a network's input.

    Attributes
    ----------
    frames
        Frames of every clip: as many slices, evenly over the region, the nearest where it has fewer. Zero: every slice
        once, as :func:`prognosis_dask.deep.clips.clip_length` says.
    slow_step
        A slow path takes every ``slow_step``-th of these frames once more, after them. Zero: there is none.
    resized
        Height and width that frames are brought to, linearly, corners on corners ...
    size
        ... and the height and width around the centre that are kept.
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
        """Which slice each frame of the clip shows.

        >>> ClipRule(frames=4, slow_step=2).order(8).tolist()
        [1, 3, 5, 7, 1, 5]
        """
        count = self.frames or clip_length(n_slices)
        # the middle of each of `count` equal parts of the region
        order = (2 * np.arange(count) + 1) * n_slices // (2 * count)
        return np.concatenate([order, order[:: self.slow_step]]) if self.slow_step else order

    def make(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Make the network's input: (slice, 128, 128) uint8 to (channel, T, height, width) float32.

        Raises
        ------
        CaseError
            ``CLIP_INVALID`` when there is no slice, or the shape or type is another.
        """
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (FRAME_SIZE,) * 2 or not len(frames):
            raise CaseError(
                Code.CLIP_INVALID,
                f"the frames are {frames.dtype} of shape {frames.shape}; expected uint8 of shape "
                f"(slice, {FRAME_SIZE}, {FRAME_SIZE}) with at least one slice: make the frames again",
            )
        levels = (np.arange(256) / 255 - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return np.take(levels.astype(np.float32), self._resize(frames)[self.order(len(frames))], axis=1)

    def _resize(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        # whole numbers below 2 ** 53: exact in whatever order they are summed; halves are rounded up
        rows, columns = (_weights(*lengths) for lengths in zip(self.resized, self.size, strict=True))
        scale = (self.resized[0] - 1) * (self.resized[1] - 1)
        sums = (rows @ frames.astype(np.float64) @ columns.T).astype(np.int64)
        return ((2 * sums + scale) // (2 * scale)).astype(np.uint8)


def _weights(resized: int, size: int) -> npt.NDArray[np.float64]:
    """Linear weights, times ``resized - 1``, of a line's 128 pixels for each of the ``size`` that are kept."""
    first = (resized - size) // 2
    left, part = np.divmod(np.arange(first, first + size) * (FRAME_SIZE - 1), resized - 1)
    weights = np.zeros((size, FRAME_SIZE))
    kept = np.arange(size)
    weights[kept, left] = resized - 1 - part
    # the last pixel has no neighbour, and needs none
    weights[kept, np.minimum(left + 1, FRAME_SIZE - 1)] += part
    return weights
