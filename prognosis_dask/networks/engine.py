"""Choose, describe and load an engine, clips in, features out, with provenance; check a file of weights with it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from prognosis_dask.arrays import AnyArray, ByteArray, Float32Array, FloatArray
from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import CaseError, Code, JobError, WeightsError, import_extra
from prognosis_dask.networks.catalogue import (
    CUBE_NETWORKS,
    NETWORKS,
    cube_network,
    find_engines,
    find_network,
    network_file,
    unknown_network,
)
from prognosis_dask.networks.clip_engine import CubeEngine
from prognosis_dask.networks.clips import FRAME_SIZE, clip_length, filled_length
from prognosis_dask.networks.file_network import architecture_provenance
from prognosis_dask.networks.gluon_import import gluon_version
from prognosis_dask.networks.weights import resolve_weights


class Engine(Protocol):
    """A network with its weights, ready to run. A clip's features do not depend on its neighbours in a batch."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name for each of the F features."""
        ...

    @property
    def rows(self) -> int:
        """Clips per pass through the network; fewer than requested after a GPU ran out of memory."""
        ...

    def features(self, clips: Float32Array) -> Float32Array:
        """Run clips of one length: (n, 3, T, 224, 224) float32 to (n, F) float32."""
        ...

    def features_of_frames(self, frames: Sequence[ByteArray]) -> Float32Array:
        """Make and run the clips of one batch of regions: n times (slice, 128, 128) uint8 to (n, F)."""
        ...


@dataclass(frozen=True)
class EngineDescription:
    """The description of an engine before it is loaded.

    ``labels`` are the class names if the features are logits, else none. ``provenance`` holds
    everything that the features depend on: engine and its version, network, output, weights and
    their sha256, device, precision, and the rows per pass through the network.
    """

    feature_names: tuple[str, ...]
    provenance: dict[str, str]
    labels: tuple[str, ...] = ()


def describe_engine(section: DeepSection) -> EngineDescription:
    """Describe what :func:`load_engine` would load, in a fraction of the time, with the errors known without loading.

    Raises
    ------
    JobError, WeightsError, MissingExtraError
        As :func:`load_engine`.
    """
    section = settle_engine(section)
    _check_file_keys(section)
    described = _describe_file(section) if network_file(section) else _describe_named(section)
    settings = {
        "engine": section.engine,
        "output": section.output,
        "device": section.device,
        "precision": section.precision,
        "rows": str(rows_together(section.device, section.batch_size)),
    }
    if section.memory_format != DeepSection.memory_format:
        settings["memory_format"] = section.memory_format
    return replace(described, provenance={**settings, **described.provenance})


def _check_file_keys(section: DeepSection) -> None:
    """Refuse keys that would have no effect."""
    keys: tuple[str, ...]
    inputs = ("input_shape", "input_mean", "input_std")
    if section.network in CUBE_NETWORKS:
        keys, why = (*inputs, "output"), "the network is known, and so are its input and output"
    elif network_file(section) is None:
        keys, why = inputs, "the network is known, and so is its input"
    elif cube_network(section):
        keys, why = ("weights", *inputs, "output"), "the TOML file beside it says what it takes and gives"
    else:
        keys, why = ("weights",), "the file holds its own weights"
    for key in keys:
        value, default = getattr(section, key), getattr(DeepSection(), key)
        if value != default:
            raise JobError(
                f"{section.key}.{key} is {value!r}, but {section.key}.network is {section.network!r}: "
                f"{why}; leave it out"
            )


def _describe_named(section: DeepSection) -> EngineDescription:
    network = find_network(section.network, section.key)
    source = {"network": network.name, "weights": section.weights}
    if network.library == "torchvision":
        from prognosis_dask.networks.clip_engine import torchvision_version, torchvision_weights

        source |= {"torch": torch_version(section.key), "torchvision": torchvision_version()}
        source["weights_sha256"], _ = torchvision_weights(section, network)
    else:
        library, version = (
            ("torch", torch_version(section.key)) if section.engine == "torch" else ("mxnet", gluon_version())
        )
        weights = resolve_weights(section.weights, network, sha256=section.weights_sha256, key=section.key)
        source |= {library: version, "weights_sha256": weights.sha256}
        if (section.engine, section.device, section.precision) == ("torch", "cpu", "float32"):
            source["convolutions"] = "F(4x4, 3x3)"
        if weights.source_sha256:
            source["weights_source_sha256"] = weights.source_sha256
    return EngineDescription(network.feature_names(section.output), source, network.labels(section.output))


def _describe_file(section: DeepSection) -> EngineDescription:
    from prognosis_dask.networks import file_network

    path = network_file(section)
    assert path is not None
    library, version = file_network.library(path, section.key)
    sha256 = file_network.file_sha256(path, section.weights_sha256, section.key)
    # only the network itself knows its number of values
    names = file_network.load_file_network(replace(section, device="cpu"), rows=1).feature_names
    known = cube_network(section)
    source = {library: version, "network": section.network, "weights_sha256": sha256}
    source["weights"] = section.weights if section.network in CUBE_NETWORKS else section.network
    if known:
        source |= {"output": known.output, "cube": str(known.cube), **architecture_provenance(path)}
        return EngineDescription(names, source)
    return EngineDescription(names, {**source, "input": str(file_network.clip_rule(section))})


def settle_engine(section: DeepSection) -> DeepSection:
    """The section with its engine chosen: ``auto`` is torch if it is installed and has the network, else gluon.

    It is resolved once per run, in the driver, so that a worker with another installation stops the run instead of
    changing the engine.

    Raises
    ------
    JobError
        When the engine lacks the network, or it or the device lacks the precision.
    """
    engines = find_engines(section)
    if section.engine == "auto":
        installed = [engine for engine in engines if importlib.util.find_spec(_LIBRARIES[engine])]
        section = replace(section, engine=(installed or engines[-1:])[0])
    elif section.engine not in engines:
        raise JobError(
            f"{section.key}.engine is {section.engine!r}, which does not run {section.network}; expected 'auto' or "
            f"{' or '.join(map(repr, engines))}"
        )
    ours = "gluon" in engines
    known = _PRECISIONS.get((section.engine, section.device), ()) if ours else ()
    known = known or ("float32",)
    if section.precision not in known:
        raise JobError(
            f"{section.key}.precision is {section.precision!r}, which engine {section.engine!r} does not have on "
            f"device {section.device!r}; expected one of {', '.join(map(repr, known))}"
        )
    expected = DeepSection.memory_format
    if section.memory_format != expected and not (ours and (section.engine, section.device) == ("torch", "gpu")):
        raise JobError(
            f"{section.key}.memory_format is {section.memory_format!r}, which is for the study's network with engine "
            f"'torch' on device 'gpu'; leave it {expected!r}"
        )
    return section


_LIBRARIES = {"torch": "torch", "gluon": "mxnet", "onnx": "onnxruntime"}
_PRECISIONS = {
    ("torch", "cpu"): ("float32", "bfloat16"),
    ("torch", "gpu"): ("float32", "tf32", "bfloat16", "float16"),
}


def torch_version(key: str) -> str:
    """The version of torch, without importing it, which takes seconds.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    if not importlib.util.find_spec("torch"):
        import_extra("torch", extra="torch", feature=f"{key}.engine = 'torch'")
    return importlib.metadata.version("torch")


def load_engine(section: DeepSection) -> Engine | CubeEngine:
    """Load the engine, network and weights of a job; takes seconds, so do it once per process.

    Raises
    ------
    JobError, WeightsError, MissingExtraError, ClusterError
        When the job names what does not exist, the weights are unavailable, the engine is not installed, or the job
        requests a GPU and none is visible.
    """
    section = settle_engine(section)
    rows = rows_together(section.device, section.batch_size)
    if network_file(section):
        from prognosis_dask.networks.file_network import load_file_network

        return load_file_network(section, rows)
    network = find_network(section.network, section.key)
    if network.library == "torchvision":
        from prognosis_dask.networks.clip_engine import load_torchvision

        return load_torchvision(section, network, rows)
    weights = resolve_weights(section.weights, network, sha256=section.weights_sha256, key=section.key)
    if section.engine == "torch":
        torch_version(section.key)
        from prognosis_dask.networks.torch_engine import load_torch

        return load_torch(section, network, weights, rows, section.memory_format)
    from prognosis_dask.networks.gluon import GluonEngine

    return GluonEngine(network, weights, output=section.output, device=section.device, rows=rows, key=section.key)


def try_memory_formats(section: DeepSection) -> dict[str, float]:
    """Clips per second of the study's network on this worker's device, by memory format.

    Raises
    ------
    WeightsError, ClusterError
        As :func:`load_engine`.
    """
    from prognosis_dask.networks.torch_engine import clips_per_second

    network = find_network(section.network, section.key)
    weights = resolve_weights(section.weights, network, sha256=section.weights_sha256, key=section.key)
    return clips_per_second(network, weights, section, rows_together(section.device, section.batch_size))


def rows_together(device: str, batch_size: int) -> int:
    """Clips per pass through the network, constant: fewer clips are padded with zeros.

    A resumed run batches clips differently, and matrix products round differently for other numbers of rows.
    On a CPU the number is 1, since larger batches are no faster there.
    """
    return batch_size if device == "gpu" else 1


def cases_per_task(section: DeepSection) -> int:
    """Cases of one padded length per task.

    Four batches on a GPU, so that the next frames are read while the network runs.
    """
    return section.batch_size * (4 if section.device == "gpu" else 1)


def frames_together(section: DeepSection, n_slices: int) -> int:
    """Padded length of a case's clip, 0 of a cube; cases with the same one share tasks."""
    if cube_network(section):
        return 0
    length = clip_length(n_slices)
    fills = section.engine == "torch" and section.device == "gpu" and not network_file(section)
    return filled_length(length) if fills else length


def check_features(values: Float32Array) -> Float32Array:
    """The features (F) of one case, checked to be finite.

    Raises
    ------
    CaseError
        ``FEATURES_NOT_FINITE`` when some are NaN or infinite.
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise CaseError(
            Code.FEATURES_NOT_FINITE,
            f"deep features that are not finite: {bad.size} of {values.size} (number {bad[0]} is {values[bad[0]]}); "
            "expected finite numbers: look at this case's frames",
        )
    return values


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
