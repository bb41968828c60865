"""Run a network in a TorchScript or ONNX file, or of torchvision's or MONAI's with its weights as safetensors."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.arrays import Float32Array
from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import ClusterError, JobError, MissingExtraError, WeightsError, import_extra
from prognosis_dask.imaging.cube import CubeRule
from prognosis_dask.networks.catalogue import SAFETENSORS, cube_network, network_file, split_description
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
    from prognosis_dask.networks.torch_engine import torch_runner

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
    from prognosis_dask.networks.torch_engine import torch_runner

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


_KNOWN = re.compile(r"(torchvision)\.models(\.[A-Za-z]\w*)+|(monai)\.networks(\.[A-Za-z]\w*)+")
#: Arguments by which these packages fetch weights.
_FETCHING = ("weights", "weights_backbone", "pretrained")


def architecture_provenance(path: Path) -> dict[str, str]:
    """The architecture with its arguments, and the version of its package; empty where the file holds its own.

    Raises
    ------
    JobError, MissingExtraError
        When it is none of the two packages', or that is not installed.
    """
    if path.suffix != SAFETENSORS:
        return {}
    own, _ = split_description(path)
    package = _package(path, own)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            f"{path.name} wants {own['architecture']}, and {package} is not installed; install it with: "
            f"pip install {package}"
        ) from error
    return {
        "architecture": f"{own['architecture']} {json.dumps(own.get('arguments', {}), sort_keys=True)}",
        package: version,
    }


def build_architecture(path: Path) -> Any:
    """The network (a torch module) with the weights of the file. Nothing is unpickled or fetched.

    Raises
    ------
    JobError, MissingExtraError
        As :func:`architecture_provenance`; when the arguments are not the architecture's.
    WeightsError
        When the file is not safetensors, or holds other weights.
    """
    architecture_provenance(path)
    import torch

    own, _ = split_description(path)
    named, arguments = str(own["architecture"]), dict(own.get("arguments", {}))
    module, _, name = named.rpartition(".")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise JobError(f"{path.with_suffix('.toml')}: there is no {named} ({error})") from error
    # what such a module has imported from elsewhere is reached by its name too
    if not callable(make) or not (inspect.getmodule(make) or torch).__name__.startswith(named.partition(".")[0] + "."):
        raise JobError(f"{path.with_suffix('.toml')}: {named} is no network of {named.partition('.')[0]}")
    try:
        network = make(**arguments)
    except Exception as error:  # its own code may raise anything
        raise JobError(f"{path.with_suffix('.toml')}: {named} does not take {arguments}: {str(error)[:300]}") from error
    if not isinstance(network, torch.nn.Module):
        raise JobError(f"{path.with_suffix('.toml')}: {named} gives {type(network).__name__}, expected a network")
    _load(network, path, named)
    return network


def _package(path: Path, own: dict[str, Any]) -> str:
    found = _KNOWN.fullmatch(str(own.get("architecture", "")))
    where = path.with_suffix(".toml")
    if not found:
        raise JobError(
            f"{where}: architecture is {own.get('architecture')!r}, expected a name in torchvision.models or "
            "monai.networks, such as 'monai.networks.nets.resnet18'"
        )
    arguments = own.get("arguments", {})
    if not isinstance(arguments, dict):
        raise JobError(f"{where}: arguments is {arguments!r}, expected a section [arguments]")
    for name in _FETCHING:
        if arguments.get(name):
            raise JobError(f"{where}: arguments.{name} would fetch weights; {path.name} holds them, leave it out")
    return found[1] or found[3]


def _load(network: Any, path: Path, named: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        values = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {str(error)[:200]}") from error
    try:
        network.load_state_dict(values)
    except RuntimeError as error:
        found = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path} does not hold the weights of {named} with these arguments: {found}") from error
