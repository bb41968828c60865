"""Run a network in a TorchScript, ONNX or safetensors file: on clips as the job declares them, or on cubes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.arrays import Float32Array
from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import ClusterError, JobError, WeightsError, import_extra
from prognosis_dask.imaging.cube import CubeRule
from prognosis_dask.networks.architecture import SAFETENSORS, build_architecture
from prognosis_dask.networks.catalogue import cube_network, network_file
from prognosis_dask.networks.clip_engine import ClipEngine, CubeEngine, RunClip
from prognosis_dask.networks.clips import MEAN, STD, ClipRule

_ONNX = ".onnx"
#: Frames of the test clip if the job leaves their number to the region.
_TRIED = 16


def load_file_network(section: DeepSection, rows: int) -> ClipEngine | CubeEngine:
    """Load the file and run it on an empty input, which also gives the number of features.

    Raises
    ------
    JobError
        When ``deep.input_shape``, the normalisation or the description of the cube is invalid, or the network takes
        another shape.
    WeightsError
        When the file cannot be read, is of another kind, gives another number of values than described, or has another
        sha256.
    MissingExtraError, ClusterError
        When torch or onnxruntime is not installed, or there is no GPU.
    """
    known = cube_network(section)
    rule = known.cube if known else clip_rule(section)
    path = _path(section)
    file_sha256(path, section.weights_sha256, section.key)
    run = load_file(path, section.device, section.key)
    shape = (rule.channels, *rule.voxels) if isinstance(rule, CubeRule) else _shape(rule)
    values = tried(
        run,
        section.key,
        path,
        (1, *shape),
        "the cube that is described for it" if known else f"what {section.key}.input_shape declares",
    )
    if known and known.values not in (0, values.size):
        raise WeightsError(
            f"{path} gives {values.size} values, expected {known.values} of {section.network}: it is another network"
        )
    stem = (known.output if known else section.output).removesuffix("s")
    names = tuple(f"{stem}_{index:0{len(str(values.size - 1))}}" for index in range(values.size))
    if isinstance(rule, CubeRule):
        return CubeEngine(run, rule, names, rows)
    return ClipEngine(run, rule, names, rows)


def _shape(rule: ClipRule) -> tuple[int, ...]:
    return (len(rule.mean), rule.frames or _TRIED, *rule.size)


def load_file(path: Path, device: str, key: str) -> RunClip:
    """The network of a TorchScript or ONNX file; ``key`` is the section that asks.

    Raises
    ------
    WeightsError, MissingExtraError, ClusterError
        When it cannot be read, its library is not installed, or there is no GPU for a job that wants one.
    """
    if path.suffix == ".pt2":
        raise WeightsError(
            f"{path} is torch.export's: torch evaluates text of such a file as code; export it as TorchScript or ONNX"
        )
    kinds = {_ONNX: _onnx, SAFETENSORS: _safetensors}
    return kinds.get(path.suffix, _torchscript)(path, device, key)


def tried(run: RunClip, key: str, path: Path, shape: tuple[int, ...], declared: str) -> Float32Array:
    """The network's values of an empty input.

    Raises
    ------
    JobError
        When it does not take the shape that was ``declared``.
    """
    try:
        return run(np.zeros(shape, np.float32))
    except Exception as error:  # the file's own code may raise anything
        raise JobError(
            f"{key}.network {path} does not take {declared}, float32 of shape {shape}: "
            f"{str(error).strip().splitlines()[-1][:300]}"
        ) from error


def _path(section: DeepSection) -> Path:
    path = network_file(section)
    if path is None:
        raise ValueError(f"{section.network} is in no file")
    return path


def library(path: Path, key: str) -> tuple[str, str]:
    """The package that runs the file, and its version.

    Raises
    ------
    MissingExtraError
        When it is not installed.
    """
    name, extra = ("onnxruntime", "onnx") if path.suffix == _ONNX else ("torch", "torch")
    try:
        return name, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        import_extra(name, extra=extra, feature=f"{key}.network = 'file:{path}'")
        raise


def file_sha256(path: Path, wanted: str, key: str) -> str:
    """The file's sha256, checked against the one that the job wants, if any.

    Raises
    ------
    WeightsError
        When the file cannot be read or differs.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the network {path}: {error.strerror} ({key}.network)") from error
    if wanted not in ("", found):
        raise WeightsError(f"the network {path} has the sha256 {found}, expected {wanted} ({key}.weights_sha256)")
    return found


def clip_rule(section: DeepSection) -> ClipRule:
    """The network's input as declared in the job.

    Raises
    ------
    JobError
        When the shape is missing or impossible, or the normalisation does not match it.
    """
    shape = section.input_shape
    if len(shape) != 4 or shape[0] not in (1, 3) or shape[1] < 0 or min(shape[2:]) < 2:
        raise JobError(
            f"{section.key}.input_shape is {list(shape)}, expected [channels (1 or 3), frames, height, width] for the "
            "network in a file, for instance [3, 16, 112, 112]; frames of 0 for one per slice; a network that "
            "reads a cube has a TOML file beside it instead (docs/networks.md)"
        )
    channels, frames, *size = shape
    mean = section.input_mean or (MEAN if channels == 3 else (0.0,))
    std = section.input_std or (STD if channels == 3 else (1.0,))
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise JobError(
            f"{section.key}.input_mean is {list(mean)} and {section.key}.input_std is {list(std)}, expected {channels} "
            "numbers each, the latter above zero: grey levels from 0 to 1 are normalised by them"
        )
    return ClipRule(frames=frames, resized=(size[0], size[1]), size=(size[0], size[1]), mean=mean, std=std)


def _torchscript(path: Path, device: str, key: str) -> RunClip:
    torch = import_extra("torch", extra="torch", feature=f"{key}.network = 'file:{path}'")
    from prognosis_dask.networks.torch_support import torch_runner

    try:
        with warnings.catch_warnings():
            # torch recommends another export; files in this format are common
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise WeightsError(
            f"{path} is not a TorchScript file, as torch.jit.save writes them: {str(error).splitlines()[0][:200]}"
        ) from error
    return torch_runner(module, device, key)


def _safetensors(path: Path, device: str, key: str) -> RunClip:
    import_extra("torch", extra="torch", feature=f"{key}.network = 'file:{path}'")
    from prognosis_dask.networks.torch_support import torch_runner

    return torch_runner(build_architecture(path), device, key)


def _onnx(path: Path, device: str, key: str) -> RunClip:
    runtime = import_extra("onnxruntime", extra="onnx", feature=f"{key}.network = 'file:{path}'")
    provider = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise ClusterError(
            f"{key}.device is 'gpu', but this onnxruntime runs on {', '.join(runtime.get_available_providers())} only; "
            f"install onnxruntime-gpu, or set {key}.device = 'cpu'"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # weights in a second file would not be part of the digest of this one: they are looked for where none are
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", f"{path}/none")
    try:
        session: Any = runtime.InferenceSession(path.read_bytes(), options, providers=[provider])
    except Exception as error:  # onnxruntime has an exception for each kind of fault
        if "External data" in str(error):
            raise WeightsError(
                f"{path} keeps weights in another file; export it as one: torch.onnx.export(..., external_data=False)"
            ) from error
        raise WeightsError(f"{path} is not a network that onnxruntime can run: {str(error)[:300]}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        names = ", ".join(one.name for one in (inputs if len(inputs) != 1 else outputs))
        raise WeightsError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs ({names}), expected one of each"
        )
    name = inputs[0].name
    return lambda clip: np.asarray(session.run(None, {name: clip})[0], np.float32).reshape(-1)
