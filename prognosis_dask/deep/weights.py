"""Where a network's weights come from, and the digest that tells them from any others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prognosis_dask.deep.networks import Network
from prognosis_dask.deep.params_file import parse_params
from prognosis_dask.deep.safetensors_file import parse_safetensors, write_safetensors
from prognosis_dask.errors import JobError, WeightsError

Values = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Weights:
    """The values of every parameter of a network.

    Attributes
    ----------
    spec
        As in the job: ``kinetics400``, ``file:PATH`` or ``untrained:SEED``.
    sha256
        Of the weight file's content; of the values where there is no file.
    path
        The weight file, None where there is none.
    source_sha256
        Of the file that this one was converted from, as :func:`convert_weights` noted it; else empty.
    values
        One array for each of ``Network.parameters``.
    """

    spec: str
    sha256: str
    path: Path | None
    values: Values = field(repr=False, compare=False)
    source_sha256: str = ""


def resolve_weights(spec: str, network: Network, *, sha256: str = "") -> Weights:
    """Get the weights that a job names.

    ``kinetics400`` is GluonCV's pretrained file, downloaded at first use and checked by GluonCV; ``file:PATH`` a
    ``.params`` file with the same names, or what :func:`convert_weights` made of one; ``untrained:SEED`` draws every
    value, for tests and demonstrations. ``sha256``, where given, is what the weights must have.

    Raises
    ------
    WeightsError
        When the file is missing, cannot be fetched, is not the one that was asked for, or does not hold this network's
        parameters.
    JobError
        When ``spec`` is none of the three.
    """
    weights = _resolve(spec, network)
    if sha256 and sha256.lower() != weights.sha256:
        raise WeightsError(
            f"the weights {spec} have the sha256 {weights.sha256}, expected {sha256} (deep.weights_sha256): they are "
            "not the ones that were asked for"
        )
    return weights


def convert_weights(source: Path, target: Path, network: Network) -> Weights:
    """Write a ``.params`` file as safetensors, which torch and others read too; nothing but the container changes.

    The new file's metadata name the network and the source's sha256; the weights returned have the sha256 of both.

    Raises
    ------
    WeightsError
        When the source cannot be read or does not hold this network's parameters, or the target cannot be written.
    """
    weights = _from_file(f"{_FILE}:{source}", source, network)
    metadata = {"network": network.name, _SOURCE: weights.source_sha256 or weights.sha256}
    try:
        target.write_bytes(write_safetensors(weights.values, metadata))
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error.strerror}") from error
    return _from_file(f"{_FILE}:{target}", target, network)


_FILE = "file"
#: Key of a converted file's metadata.
_SOURCE = "source_sha256"
_SAFETENSORS = ".safetensors"


def _resolve(spec: str, network: Network) -> Weights:
    kind, _, rest = spec.partition(":")
    if spec == "kinetics400":
        return _from_file(spec, _pretrained(network), network)
    if kind == _FILE and rest:
        return _from_file(spec, Path(rest), network)
    if kind == "untrained" and rest.isdecimal():
        values = _draw(int(rest), network)
        digest = hashlib.sha256()
        for value in values.values():
            digest.update(value.astype("<f4").tobytes())
        return Weights(spec, digest.hexdigest(), None, values)
    raise JobError(
        f"deep.weights is {spec!r}, expected 'kinetics400', 'file:PATH.params' or 'untrained:SEED' (a whole number)"
    )


def _pretrained(network: Network) -> Path:
    from prognosis_dask.deep.gluon_import import import_gluon

    store = import_gluon().model_zoo.model_store
    try:
        return Path(store.get_model_file(network.name))
    except Exception as error:  # no network, no room, another checksum, a page in place of the file
        raise WeightsError(
            f"GluonCV's pretrained file of {network.name} could not be fetched: get "
            f"{network.name}-{store.short_hash(network.name)}.params on a machine with a network, and set "
            f"deep.weights = 'file:PATH' ({type(error).__name__}: {_cause(error)})"
        ) from error


def _cause(error: Exception) -> str:
    """What an error says at its core: requests wraps urllib3's retries, and those the connection and what it met."""
    core = getattr(error.args[0], "reason", error) if error.args else error
    return str(core).rpartition("): ")[2][-200:]


def _from_file(spec: str, path: Path, network: Network) -> Weights:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"cannot read the weight file {path}: {error.strerror}; deep.weights = 'file:PATH' expects the path of "
            f"a .params or .safetensors file of {network.name}"
        ) from error
    metadata: dict[str, str] = {}
    try:
        if path.suffix == _SAFETENSORS:
            arrays, metadata = parse_safetensors(content)
        else:
            arrays = parse_params(content)
    except ValueError as error:
        kind = _SAFETENSORS if path.suffix == _SAFETENSORS else ".params"
        raise WeightsError(f"{path} is not a {kind} file of {network.name}: {error}") from error
    values = {network.aliases.get(name, name): array for name, array in arrays.items()}
    _check(values, network, path)
    ordered = {name: values[name] for name in network.parameters}
    return Weights(spec, hashlib.sha256(content).hexdigest(), path, ordered, metadata.get(_SOURCE, ""))


def _check(values: Values, network: Network, path: Path) -> None:
    expected = network.parameters
    faults = {
        "lacks": [f"{name} {shape}" for name, shape in expected.items() if name not in values],
        "has besides": [f"{name} {array.shape}" for name, array in values.items() if name not in expected],
        "has in other shapes": [
            f"{name} {values[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if name in values and values[name].shape != shape
        ],
        "has values that are not finite in": [
            name for name, array in values.items() if name in expected and not np.isfinite(array).all()
        ],
    }
    found = [f"{what} {'; '.join(names[:3])} ({len(names)} in all)" for what, names in faults.items() if names]
    if found:
        raise WeightsError(
            f"{path} does not fit {network.name}, which has {len(expected)} parameters: it {', and '.join(found)}"
        )


def _draw(seed: int, network: Network) -> Values:
    """Draw every parameter in order: uniform numbers only, which are the same on every platform.

    Kernels have the variance that keeps the size of the values from layer to layer (He et al. 2015,
    arXiv:1502.01852); batch normalisation gets statistics near those of such values, so that all of its terms count.
    """
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in network.parameters.items():
        low, high = _range(name, shape)
        values[name] = np.float32(low) + np.float32(high - low) * rng.random(shape, dtype=np.float32)
    return values


def _range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if name.endswith("weight"):
        bound = math.sqrt(6 / math.prod(shape[1:]))
        return -bound, bound
    return (0.8, 1.2) if name.endswith(("gamma", "running_var")) else (-0.2, 0.2)
