"""Get, convert and write the weights of a network (``.params``, safetensors), identified by their sha256."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.arrays import Float32Array
from prognosis_dask.errors import JobError, WeightsError
from prognosis_dask.networks.catalogue import Network

Values = Mapping[str, Float32Array]

_LIST = 0x112
#: Version 2, and 3, which also allows arrays without dimensions.
_ARRAYS = (0xF993FAC9, 0xF993FACA)
_DENSE = 0
_FLOAT32 = 0

_METADATA = "__metadata__"


@dataclass(frozen=True)
class Weights:
    """The values of every parameter of a network.

    Attributes
    ----------
    spec
        As in the job: ``kinetics400``, ``file:PATH`` or ``untrained:SEED``.
    sha256
        Of the weight file's content, or of the values if there is no file.
    path
        The weight file, if any.
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


def resolve_weights(spec: str, network: Network, *, sha256: str = "", key: str = "deep") -> Weights:
    """Get the weights that a job names.

    ``kinetics400`` is GluonCV's pretrained file, downloaded at first use and checked by GluonCV; ``file:PATH`` a
    ``.params`` file with the same names, or its conversion by :func:`convert_weights`; ``untrained:SEED`` draws random
    values, for tests and demonstrations. ``sha256``, if given, must match. ``key`` is the section that asks.

    Raises
    ------
    WeightsError
        When the file is missing, cannot be fetched, is not the requested one, or does not hold this network's
        parameters.
    JobError
        When ``spec`` is none of the three.
    """
    weights = _resolve(spec, network, key)
    if sha256 and sha256.lower() != weights.sha256:
        raise WeightsError(
            f"the weights {spec} have the sha256 {weights.sha256}, expected {sha256} ({key}.weights_sha256): they are "
            "not the requested ones"
        )
    return weights


def convert_weights(source: Path, target: Path, network: Network) -> Weights:
    """Write a ``.params`` file as safetensors, which torch and others read too; only the container changes.

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


def _resolve(spec: str, network: Network, key: str) -> Weights:
    kind, _, rest = spec.partition(":")
    if spec == "kinetics400":
        return _from_file(spec, _pretrained(network, key), network, key)
    if kind == _FILE and rest:
        return _from_file(spec, Path(rest), network, key)
    if kind == "untrained" and rest.isdecimal():
        values = _draw(int(rest), network)
        digest = hashlib.sha256()
        for value in values.values():
            digest.update(value.astype("<f4").tobytes())
        return Weights(spec, digest.hexdigest(), None, values)
    raise JobError(
        f"{key}.weights is {spec!r}, expected 'kinetics400', 'file:PATH.params' or 'untrained:SEED' (a whole number)"
    )


def _pretrained(network: Network, key: str) -> Path:
    from prognosis_dask.networks.gluon_import import import_gluon

    store = import_gluon().model_zoo.model_store
    try:
        return Path(store.get_model_file(network.name))
    except Exception as error:  # no connection, no space, a wrong checksum, an HTML page instead of the file
        raise WeightsError(
            f"GluonCV's pretrained file of {network.name} could not be fetched: get "
            f"{network.name}-{store.short_hash(network.name)}.params on a machine with a network, and set "
            f"{key}.weights = 'file:PATH' ({type(error).__name__}: {_cause(error)})"
        ) from error


def _cause(error: Exception) -> str:
    """The message of the root cause: requests wraps urllib3's retries, which wrap the connection error."""
    core = getattr(error.args[0], "reason", error) if error.args else error
    return str(core).rpartition("): ")[2][-200:]


def _from_file(spec: str, path: Path, network: Network, key: str = "deep") -> Weights:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"cannot read the weight file {path}: {error.strerror}; {key}.weights = 'file:PATH' expects the path of "
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
    """Draw every parameter in order, from uniform numbers only, which are the same on every platform.

    Kernels have the variance of He et al. 2015 (arXiv:1502.01852), which preserves the scale of values between layers;
    batch normalisation gets matching statistics, so that all its terms matter.
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


def parse_params(content: bytes) -> dict[str, Float32Array]:
    """The named float32 arrays of a ``.params`` file's content.

    Raises
    ------
    ValueError
        When the content is not such a file, or is truncated; the message says what was found where.
    """
    reader = _TensorReader(content)
    if len(content) < 24 or reader.take("<QQ")[0] != _LIST:
        raise ValueError(f"it does not begin as MXNet's .params files do (its first bytes are {content[:8]!r})")
    (count,) = reader.take("<Q")
    arrays = [reader.array() for _ in range(count)]
    (named,) = reader.take("<Q")
    names = [reader.text() for _ in range(named)]
    if len(names) != len(arrays) or reader.at != len(content):
        raise ValueError(f"it holds {len(arrays)} arrays and {len(names)} names, {len(content) - reader.at} bytes over")
    return dict(zip(names, arrays, strict=True))


class _TensorReader:
    """A read position in the content; never reads beyond the end."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def bytes(self, count: int) -> memoryview:
        if count > len(self.content) - self.at:
            raise ValueError(f"it is cut short: at byte {self.at} of {len(self.content)}, {count} more were expected")
        self.at += count
        return memoryview(self.content)[self.at - count : self.at]

    def take(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def text(self) -> str:
        (count,) = self.take("<Q")
        return str(self.bytes(count), "utf-8")

    def array(self) -> Float32Array:
        start = self.at
        magic, storage, ndim = self.take("<IiI")
        if magic not in _ARRAYS or storage != _DENSE or ndim > 8:
            raise ValueError(f"at byte {start} there is no dense array of format version 2 or 3 (found {magic:#x})")
        shape = self.take(f"<{ndim}q")
        _device, _device_id, kind = self.take("<iii")
        if kind != _FLOAT32 or any(size < 1 for size in shape):
            raise ValueError(f"at byte {start} there is an array of type {kind}, shape {shape}; expected float32 (0)")
        count = int(np.prod(shape, dtype=object))
        return np.frombuffer(self.bytes(4 * count), "<f4").reshape(shape)


def write_safetensors(arrays: Mapping[str, Float32Array], metadata: Mapping[str, str]) -> bytes:
    """The content of a file with these arrays, in their order."""
    header: dict[str, object] = {_METADATA: dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(array.astype("<f4").tobytes() for array in arrays.values())])


def parse_safetensors(content: bytes) -> tuple[dict[str, Float32Array], dict[str, str]]:
    """The named float32 arrays in the content of a file, and its metadata.

    Raises
    ------
    ValueError
        When the content is not such a file, is truncated or has other types; the message says what was found.
    """
    size = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else len(content)
    if size > len(content) - 8:
        raise ValueError(f"it does not begin as safetensors files do, or is cut short ({len(content)} bytes)")
    data = memoryview(content)[8 + size :]
    try:
        header = json.loads(content[8 : 8 + size])
        metadata = header.pop(_METADATA, {})
        arrays = {name: _array(name, entry, data) for name, entry in header.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its header is not that of a safetensors file ({type(error).__name__}: {error})") from error
    return arrays, metadata


def _array(name: str, entry: Mapping[str, Any], data: memoryview) -> Float32Array:
    (start, end), shape = entry["data_offsets"], entry["shape"]
    if entry["dtype"] != "F32":
        raise ValueError(f"{name} is of type {entry['dtype']}; expected F32 (float32)")
    if not 0 <= start <= end <= len(data) or end - start != 4 * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{name} of shape {shape} lies at bytes {start} to {end} of {len(data)}: it is cut short")
    return np.frombuffer(data[start:end], "<f4").reshape(shape)
