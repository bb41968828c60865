"""Engines for any function of one clip or one cube: torchvision's networks and those in files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.cube import CubeRule
from prognosis_dask.networks.clips import ClipRule, check_frames

#: (1, channel, T, height, width) to (F), both float32; a cube's axes in place of a clip's.
RunClip = Callable[[Float32Array], Float32Array]


@runtime_checkable
class RunFrames(Protocol):
    """A :data:`RunClip` that also makes a region's clip, where the network runs."""

    def __call__(self, clip: Float32Array, /) -> Float32Array:
        """(1, channel, T, height, width) to (F)."""
        ...

    def of_frames(self, frames: ByteArray, rule: ClipRule) -> Float32Array:
        """(slice, 128, 128) to (F)."""
        ...


def _row(values: Float32Array, names: tuple[str, ...]) -> Float32Array:
    """The values of one clip or cube.

    Raises
    ------
    CaseError
        ``CLIP_INVALID`` when they are not as many as the network gave when it was tried.
    """
    if values.size != len(names):
        raise CaseError(
            Code.CLIP_INVALID,
            f"the network gives {values.size} values of this input, expected {len(names)} as of the one that it was "
            "tried on: let it average over frames, or fix their number",
        )
    return values


class ClipEngine:
    """Runs clips one by one, whatever the ``rows``, so that none depends on its neighbours.

    See :class:`prognosis_dask.networks.engine.Engine`.
    """

    def __init__(self, run: RunClip | RunFrames, rule: ClipRule, feature_names: tuple[str, ...], rows: int) -> None:
        self.feature_names = feature_names
        self.rows = rows
        self._run = run
        self._rule = rule
        self._lock = threading.Lock()

    def features(self, clips: Float32Array) -> Float32Array:
        """Run clips of one length: (n, channel, T, height, width) float32 to (n, F) float32."""
        rule = self._rule
        length = rule.length(1) if rule.frames else "T"
        expected = (len(rule.mean), length, *rule.size)
        seen = clips.shape[1:2] + (clips.shape[2:3] if rule.frames else ("T",)) + clips.shape[3:]
        if seen != expected or clips.dtype != np.float32:
            raise ValueError(f"clips are {clips.dtype} of shape {clips.shape}; expected float32 of (n, *{expected})")
        with self._lock:
            return np.stack([_row(self._run(clip[None]), self.feature_names) for clip in clips])

    def features_of_frames(self, frames: Sequence[ByteArray]) -> Float32Array:
        """Run regions: n times (slice, 128, 128) uint8 to (n, F) float32.

        Raises
        ------
        CaseError
            ``CLIP_INVALID`` for frames of another shape or type, or when the number of values depends on the clip.
        """
        run = self._run
        if not isinstance(run, RunFrames):
            return np.concatenate([self.features(self._rule.make(region)[None]) for region in frames])
        for region in frames:
            check_frames(region)
        with self._lock:
            return np.stack([_row(run.of_frames(region, self._rule), self.feature_names) for region in frames])


class CubeEngine:
    """Runs cubes one by one, as :class:`ClipEngine` does clips.

    Attributes
    ----------
    cube
        How the cubes are cut.
    """

    def __init__(self, run: RunClip, cube: CubeRule, feature_names: tuple[str, ...], rows: int) -> None:
        self.feature_names = feature_names
        self.rows = rows
        self.cube = cube
        self._run = run
        self._lock = threading.Lock()

    def features(self, cubes: Float32Array) -> Float32Array:
        """Run cubes: (n, channel, *voxels) float32 to (n, F) float32."""
        expected = (self.cube.channels, *self.cube.voxels)
        if cubes.shape[1:] != expected or cubes.dtype != np.float32:
            raise ValueError(f"cubes are {cubes.dtype} of shape {cubes.shape}; expected float32 of (n, *{expected})")
        with self._lock:
            return np.stack([_row(self._run(cube[None]), self.feature_names) for cube in cubes])
