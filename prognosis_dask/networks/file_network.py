"""Run a user's own network: a TorchScript or ONNX file that takes clips of the shape declared in the job."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import ClusterError, JobError, WeightsError, import_extra
from prognosis_dask.networks.clip_engine import ClipEngine, RunClip
from prognosis_dask.networks.clips import MEAN, STD, ClipRule

PREFIX = "file:"
_ONNX = ".onnx"
#: Frames of the test clip if the job leaves their number to the region.
_TRIED = 16


def load_file_network(section: DeepSection, rows: int) -> ClipEngine:
    """Load the file and run it on an empty clip, which also gives the number of features.

    Raises
    ------
    JobError
        When ``deep.input_shape`` or the normalisation is invalid, or the network takes another shape.
    WeightsError
        When the file cannot be read, is of another kind, or has another sha256.
    MissingExtraError, ClusterError
        When torch or onnxruntime is not installed, or there is no GPU.
    """
    rule = clip_rule(section)
    file_sha256(section)
    path = Path(section.network.removeprefix(PREFIX))
    run = (_onnx if path.suffix == _ONNX else _torchscript)(path, section.device)
    tried = (1, len(rule.mean), rule.frames or _TRIED, *rule.size)
    try:
        values = run(np.zeros(tried, np.float32))
    except Exception as error:  # the file's own code may raise anything
        raise JobError(
            f"deep.network {path} does not take what deep.input_shape declares, float32 of shape {tried}: "
            f"{str(error).strip().splitlines()[-1][:300]}"
        ) from error
    stem = section.output.removesuffix("s")
    names = tuple(f"{stem}_{index:0{len(str(values.size - 1))}}" for index in range(values.size))
    return ClipEngine(run, rule, names, rows)


def library(section: DeepSection) -> tuple[str, str]:
    """The package that runs the file, and its version.

    Raises
    ------
    MissingExtraError
        When it is not installed.
    """
    name, extra = ("onnxruntime", "onnx") if section.network.endswith(_ONNX) else ("torch", "torch")
    try:
        return name, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        import_extra(name, extra=extra, feature=f"deep.network = '{section.network}'")
        raise


def file_sha256(section: DeepSection) -> str:
    """The file's sha256, checked against the job's, if any.

    Raises
    ------
    WeightsError
        When the file cannot be read or differs.
    """
    path = Path(section.network.removeprefix(PREFIX))
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the network {path}: {error.strerror} (deep.network)") from error
    if section.weights_sha256 not in ("", found):
        raise WeightsError(
            f"the network {path} has the sha256 {found}, expected {section.weights_sha256} (deep.weights_sha256)"
        )
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
            f"deep.input_shape is {list(shape)}, expected [channels (1 or 3), frames, height, width] for the "
            "network in a file, for instance [3, 16, 112, 112]; frames of 0 for one per slice"
        )
    channels, frames, *size = shape
    mean = section.input_mean or (MEAN if channels == 3 else (0.0,))
    std = section.input_std or (STD if channels == 3 else (1.0,))
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise JobError(
            f"deep.input_mean is {list(mean)} and deep.input_std is {list(std)}, expected {channels} numbers each, "
            "the latter above zero: grey levels from 0 to 1 are normalised by them"
        )
    return ClipRule(frames=frames, resized=(size[0], size[1]), size=(size[0], size[1]), mean=mean, std=std)


def _torchscript(path: Path, device: str) -> RunClip:
    torch = import_extra("torch", extra="torch", feature=f"deep.network = 'file:{path}'")
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
    return torch_runner(module, device)


def _onnx(path: Path, device: str) -> RunClip:
    runtime = import_extra("onnxruntime", extra="onnx", feature=f"deep.network = 'file:{path}'")
    provider = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise ClusterError(
            f"deep.device is 'gpu', but this onnxruntime runs on {', '.join(runtime.get_available_providers())} only; "
            "install onnxruntime-gpu, or set deep.device = 'cpu'"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session: Any = runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime has an exception for each kind of fault
        raise WeightsError(f"{path} is not a network that onnxruntime can run: {str(error)[:300]}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise WeightsError(f"{path} has {len(inputs)} inputs, expected one: the clip")
    name = inputs[0].name
    return lambda clip: np.asarray(session.run(None, {name: clip})[0], np.float32).reshape(-1)
