"""Engines for any function of one clip or one cube: torchvision's networks and those in files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import CaseError, Code, JobError, WeightsError, import_extra
from prognosis_dask.imaging.cube import CubeRule
from prognosis_dask.networks.catalogue import Network
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


#: torchvision's function, its weights, and the layer from pooled values to logits.
_MODELS = {
    "r3d_18_kinetics400": ("r3d_18", "R3D_18_Weights", "fc"),
    "s3d_kinetics400": ("s3d", "S3D_Weights", "classifier"),
}


def torchvision_version() -> str:
    """The version of torchvision.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    if not importlib.util.find_spec("torchvision"):
        import_extra("torchvision", extra="torchvision", feature="this deep.network")
    return importlib.metadata.version("torchvision")


def torchvision_weights(section: DeepSection, network: Network) -> tuple[str, Path | None]:
    """The sha256 of a job's weights, and their file; none for random ones.

    ``kinetics400`` is torchvision's own file, downloaded at first use and checked by torch; ``file:PATH`` a state dict
    of the same network; ``untrained:SEED`` torchvision's initial values after ``torch.manual_seed``.

    Raises
    ------
    WeightsError, JobError, MissingExtraError
        When the file is unavailable, ``deep.weights`` is none of the three, or torchvision is not installed.
    """
    torchvision_version()
    kind, _, rest = section.weights.partition(":")
    if kind == "untrained" and rest.isdecimal():
        return hashlib.sha256(f"{network.name} {torchvision_version()} {section.weights}".encode()).hexdigest(), None
    if section.weights == "kinetics400":
        path = _download(network, section.key)
    elif kind == "file" and rest:
        path = Path(rest)
    else:
        raise JobError(
            f"{section.key}.weights is {section.weights!r}, expected 'kinetics400', 'file:PATH.pth' or 'untrained:SEED'"
        )
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the weight file {path}: {error.strerror}") from error
    if section.weights_sha256 not in ("", found):
        raise WeightsError(
            f"the weights {section.weights} have the sha256 {found}, expected {section.weights_sha256} "
            f"({section.key}.weights_sha256)"
        )
    return found, path


def load_torchvision(section: DeepSection, network: Network, rows: int) -> ClipEngine:
    """Load a network.

    Raises
    ------
    WeightsError, JobError, MissingExtraError, ClusterError
        As :func:`torchvision_weights`; when the file does not hold this network's parameters; when there is no GPU.
    """
    import torch

    from prognosis_dask.networks.torch_engine import torch_runner

    _, path = torchvision_weights(section, network)
    function, _, classifier = _MODELS[network.name]
    with torch.random.fork_rng(devices=[]):
        if path is None:
            torch.manual_seed(int(section.weights.partition(":")[2]))
        module = getattr(_video(), function)(weights=None)
    if path is not None:
        try:
            module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # another format, another network, an HTML page instead of the file
            raise WeightsError(f"{path} does not fit torchvision's {function}: {str(error)[:300]}") from error
    if section.output == "pooled":
        setattr(module, classifier, torch.nn.Identity())
    names = network.feature_names(section.output)
    return ClipEngine(torch_runner(module, section.device, section.key), network.clip, names, rows)


def _video() -> Any:
    return import_extra("torchvision.models.video", extra="torchvision", feature="this deep.network")


def _download(network: Network, key: str) -> Path:
    import torch

    url: str = getattr(_video(), _MODELS[network.name][1]).KINETICS400_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=part, progress=False)
        except Exception as error:  # no connection, no space, a wrong checksum
            raise WeightsError(
                f"could not fetch {url}: {error}. On a machine without network, fetch it elsewhere and set "
                f"{key}.weights = 'file:PATH'"
            ) from error
    return path
