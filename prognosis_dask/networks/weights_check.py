"""Whether a file holds the weights that it should: its hashes, and a known input's known values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prognosis_dask.arrays import AnyArray, ByteArray, FloatArray
from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import WeightsError
from prognosis_dask.networks.catalogue import CUBE_NETWORKS, NETWORKS, unknown_network
from prognosis_dask.networks.clip_engine import CubeEngine
from prognosis_dask.networks.clips import FRAME_SIZE
from prognosis_dask.networks.engine import load_engine

#: The values must agree so far: those of a lossy video, read by another decoder, do.
CORRELATION, STANDARD_DEVIATIONS = 0.99, 0.5
_VIDEOS = (".mp4", ".mkv", ".avi", ".mov")


@dataclass(frozen=True)
class WeightsCheck:
    """What was found.

    Attributes
    ----------
    sha256, sha1
        Of the file.
    published
        Whether it is the published file, by its sha1; None where that is not known.
    values
        How many values were compared; 0: none.
    correlation
        Pearson's, of the values with those expected.
    difference
        The largest difference, in standard deviations of the expected values.
    """

    sha256: str
    sha1: str
    published: bool | None
    values: int = 0
    correlation: float = 0.0
    difference: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether the values agree; where none were compared, whether it is not known to be another file."""
        if not self.values:
            return self.published is not False
        return self.correlation > CORRELATION and self.difference < STANDARD_DEVIATIONS

    @property
    def lines(self) -> list[str]:
        """For the terminal."""
        said = {True: "it is the published file", False: "it is not the published file", None: "not known here"}
        found = [f"sha256 {self.sha256}", f"sha1   {self.sha1}: {said[self.published]}"]
        if self.values:
            found.append(
                f"{self.values} values: correlation {self.correlation:.5f} (expected above {CORRELATION}), largest "
                f"difference {self.difference:.4f} standard deviations (expected below {STANDARD_DEVIATIONS})"
            )
        return [*found, "The weights are right" if self.agrees and (self.values or self.published) else self._doubt()]

    def _doubt(self) -> str:
        if not self.agrees:
            return "The weights are not the ones that were expected"
        return "The file fits the network; only a known input with its values can tell more"


def check_weights(
    name: str, path: Path, *, example: Path | None = None, expected: Path | None = None, hold: int = 1
) -> WeightsCheck:
    """Load a network with the weights of a file and, where there is an example, run it.

    Parameters
    ----------
    name
        A job's ``deep.network``; ``file`` for a network's own file with its description beside it.
    path
        The file.
    example
        What the network reads: frames, (slice, 128, 128) uint8, or a cube, (channel, *voxels) float32, as ``.npy``; or
        frames as a video, of which every ``hold``-th is taken.
    expected
        The values that must come out, as text.

    Raises
    ------
    WeightsError
        When a file cannot be read, does not fit, or gives another number of values.
    JobError, MissingExtraError
        As :func:`prognosis_dask.networks.engine.load_engine`.
    """
    every = (*NETWORKS, *CUBE_NETWORKS, "file")
    if name not in every:
        raise unknown_network(name, "", every)
    spec = f"file:{path}"
    engine = load_engine(DeepSection(network=spec) if name == "file" else DeepSection(network=name, weights=spec))
    content = path.read_bytes()
    sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    # a converted file has another hash than the one it was made from
    known = NETWORKS[name].published_sha1 if name in NETWORKS and path.suffix == ".params" else ""
    check = WeightsCheck(hashlib.sha256(content).hexdigest(), sha1, sha1 == known if known else None)
    if example is None or expected is None:
        return check
    if isinstance(engine, CubeEngine):
        values = engine.features(np.asarray(_read(example, hold), np.float32)[None])[0]
    else:
        values = engine.features_of_frames([_read(example, hold)])[0]
    wanted = _values(expected)
    if len(wanted) != len(values):
        raise WeightsError(f"{expected} holds {len(wanted)} values, and {name} gives {len(values)}")
    return WeightsCheck(
        check.sha256,
        sha1,
        check.published,
        len(values),
        float(np.corrcoef(values, wanted)[0, 1]),
        float(np.abs(values - wanted).max() / wanted.std()),
    )


def _values(path: Path) -> FloatArray:
    try:
        values: FloatArray = np.loadtxt(path).ravel()
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the expected values {path}: {error}") from error
    if len(values) < 2 or not np.isfinite(values).all() or not np.ptp(values):
        raise WeightsError(f"{path} holds {len(values)} values; expected two or more, finite and not all alike")
    return values


def _read(path: Path, hold: int) -> AnyArray:
    try:
        found: AnyArray = _video(path)[::hold] if path.suffix.lower() in _VIDEOS else np.load(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the example {path}: {error}") from error
    return found


def _video(path: Path) -> ByteArray:
    try:
        import imageio.v3 as iio

        read = iio.imread(path, plugin="pyav")
    except ImportError as error:
        raise WeightsError(
            f"reading the video {path} needs imageio with PyAV: pip install 'imageio[pyav]', or give the frames as .npy"
        ) from error
    frames: ByteArray = np.ascontiguousarray(read[..., 0])
    if frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE):
        raise WeightsError(f"{path} shows {frames.shape[1:]} pixels, expected {FRAME_SIZE} x {FRAME_SIZE}")
    return frames
