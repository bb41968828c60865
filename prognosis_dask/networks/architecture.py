"""A network whose weights are a safetensors file: its architecture is one of torchvision's or MONAI's, by its name."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import re
from pathlib import Path
from typing import Any

from prognosis_dask.config.reading import read_toml
from prognosis_dask.errors import JobError, MissingExtraError, WeightsError

SAFETENSORS = ".safetensors"
#: Keys of the TOML file beside the weights that are read here.
KEYS = ("architecture", "arguments")
_KNOWN = re.compile(r"(torchvision)\.models(\.[A-Za-z]\w*)+|(monai)\.networks(\.[A-Za-z]\w*)+")
#: Arguments by which these packages fetch weights.
_FETCHING = ("weights", "weights_backbone", "pretrained")


def split_description(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the TOML file beside a network's file says of its architecture, and the rest.

    Raises
    ------
    JobError
        When it is not there or is not TOML; when a file that is no safetensors has an architecture.
    """
    content = read_toml(path.with_suffix(".toml"), f"{path.name} needs its description {path.with_suffix('.toml')}")
    own = {name: content.pop(name) for name in KEYS if name in content}
    if own and path.suffix != SAFETENSORS:
        raise JobError(
            f"{path.with_suffix('.toml')} names an architecture, but {path.name} holds its own; leave it out"
        )
    return own, content


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
