"""The study's network as Keras saved it (HDF5, or that in a zip): read without Keras, another network is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.arrays import Float32Array
from prognosis_dask.errors import WeightsError, import_extra
from prognosis_dask.networks.grade_network import FILTERS, WIDTHS, GradeNetwork, Values, feature_names
from prognosis_dask.networks.training import Trained

#: Our layers in the order of computation, and what Keras must say of each where it says anything.
_CONVOLUTION = {
    "padding": "same",
    "activation": "linear",
    "data_format": "channels_last",
    "strides": [1, 1, 1],
    "dilation_rate": [1, 1, 1],
}
_LAYERS: Mapping[str, Mapping[str, Any]] = {
    "conv_1": _CONVOLUTION,
    "conv_2": _CONVOLUTION,
    "dense_1": {"activation": "relu"},
    "dense_2": {"activation": "relu"},
    "output": {"activation": "sigmoid"},
}
_POOLING = {"pool_size": [2, 2, 2], "strides": [2, 2, 2], "data_format": "channels_last"}
_FLATTEN = {"data_format": "channels_last"}
#: Layers of the study's network, by Keras' names of classes; others compute something else.
_KNOWN = ("InputLayer", "Conv3D", "MaxPooling3D", "Flatten", "Dense", "Dropout")


def read_keras(path: Path, *, axes: str = "", input_shape: tuple[int, int, int] | None = None) -> Trained:
    """The study's network from a file of Keras 2 or 3 (``model.save`` or ``save_weights``: ``.h5``, ``.keras``).

    Keras has its channels last: a kernel is (axis, axis, axis, in, out), and the flattened values run through the
    channels first. Both are brought into this program's order (channel, slice, row, column).

    Parameters
    ----------
    path
        The file.
    axes
        The network's three input axes in Keras' order, as letters: ``z`` slices, ``y`` rows, ``x`` columns. By default
        rows before columns, with the slices where the shape's odd length is.
    input_shape
        Lengths of these axes, for a file that holds weights alone.

    Returns
    -------
    Trained
        Without a curve. Its features' scale is 0 and 1: features are not standardised.

    Raises
    ------
    MissingExtraError
        When h5py is not installed.
    WeightsError
        When the file cannot be read, holds another network, or does not say how its axes run.
    """
    h5py = import_extra("h5py", extra="keras", feature="reading a network that Keras saved")
    if not path.is_file():
        raise WeightsError(f"no file at {path}; expected a network that Keras saved as .h5 or .keras")
    try:
        whole, content = _unpacked(path)
        with h5py.File(content, "r") as file:
            config = _config(whole or file.attrs.get("model_config"))
            layers = _weights(file.get("model_weights", file))
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is no network that Keras saved as .h5 or .keras ({error})") from error
    try:
        if config:
            _expect_layers(config)
        shape = _input_shape(config, input_shape)
        axes = axes or _usual_axes(shape)
        if sorted(axes) != ["x", "y", "z"]:
            raise ValueError(f"its axes are told as {axes!r}; expected the letters x, y, z in any order")
        network = GradeNetwork(_ordered(shape, axes))
        values = _values(layers, network, shape, axes)
    except ValueError as error:
        raise WeightsError(f"{path} is not the study's network: {error}") from error
    count = len(feature_names())
    scale = np.stack([np.zeros(count, np.float32), np.ones(count, np.float32)])
    return Trained(network, values, scale, (), 0)


def _unpacked(path: Path) -> tuple[str, Path | BytesIO]:
    """What Keras 3 packs into a ``.keras`` file: the configuration, and the weights as HDF5; else "" and the path."""
    if not zipfile.is_zipfile(path):
        return "", path
    with zipfile.ZipFile(path) as file:
        return file.read("config.json").decode(), BytesIO(file.read("model.weights.h5"))


def _config(text: Any) -> list[dict[str, Any]]:
    """The layers as the model's configuration has them; empty where there is none."""
    if text is None:
        return []
    config = json.loads(_text(text))["config"]
    # Keras before 2.2.3 wrote the layers of a sequential model without its name
    layers: list[dict[str, Any]] = config["layers"] if isinstance(config, dict) else config
    return layers


#: Layers with weights by Keras 3's names, which number each class in the model's order.
_NUMBERED = ("conv3d", "conv3d_1", "dense", "dense_1", "dense_2")


def _weights(group: Any) -> list[list[Float32Array]]:
    """Kernel and bias of every layer that has weights, in the model's order."""
    if "layer_names" not in group.attrs and "layers" in group:
        held = {name: layer["vars"] for name, layer in group["layers"].items() if len(layer.get("vars", ()))}
        if set(held) != set(_NUMBERED):
            raise ValueError(f"weights are of the layers {', '.join(held)}, expected {', '.join(_NUMBERED)}")
        return [[np.asarray(held[name][at], np.float32) for at in sorted(held[name])] for name in _NUMBERED]
    found = []
    for layer in map(_text, group.attrs["layer_names"]):
        names = [_text(name) for name in group[layer].attrs["weight_names"]]
        if names:
            found.append([np.asarray(group[layer][name], np.float32) for name in names])
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _expect_layers(config: list[dict[str, Any]]) -> None:
    other = [layer["class_name"] for layer in config if layer["class_name"] not in _KNOWN]
    if other:
        raise ValueError(f"it has a layer {other[0]}; expected {', '.join(_KNOWN[1:])}")
    order = [layer["class_name"] for layer in config if layer["class_name"] not in ("InputLayer", "Dropout")]
    expected = ["Conv3D", "MaxPooling3D", "Conv3D", "MaxPooling3D", "Flatten", "Dense", "Dense", "Dense"]
    if order != expected:
        raise ValueError(f"its layers are {', '.join(order)}; expected {', '.join(expected)}")
    weighted = [layer["config"] for layer in config if layer["class_name"] in ("Conv3D", "Dense")]
    pooling = [layer["config"] for layer in config if layer["class_name"] == "MaxPooling3D"]
    rules = [*zip(weighted, _LAYERS.values(), strict=True), *((layer, _POOLING) for layer in pooling)]
    rules += [(layer["config"], _FLATTEN) for layer in config if layer["class_name"] == "Flatten"]
    for layer, rule in rules:
        for key, value in rule.items():
            if layer.get(key, value) != value:
                raise ValueError(f"{layer.get('name', 'a layer')} has {key} {layer[key]!r}; expected {value!r}")


def _input_shape(config: list[dict[str, Any]], told: tuple[int, int, int] | None) -> tuple[int, int, int]:
    for layer in config[:1]:
        held = layer["config"].get("batch_input_shape") or layer["config"].get("batch_shape")
        if held:
            _, *shape, channels = held
            if len(shape) != 3 or channels != 1:
                raise ValueError(f"its input is {held}; expected three axes and one channel")
            if told and tuple(shape) != tuple(told):
                raise ValueError(f"its input is {shape}, not {list(told)}")
            return shape[0], shape[1], shape[2]
    if not told:
        raise ValueError("it does not say the shape of its input; give --shape and --axes")
    return told


def _usual_axes(shape: tuple[int, int, int]) -> str:
    """Rows before columns; the slices are the one axis of another length."""
    odd = [axis for axis in range(3) if shape.count(shape[axis]) == 1]
    if len(odd) != 1:
        raise ValueError(f"which axis of its input {list(shape)} are the slices is not clear; give --axes")
    return "yx"[: odd[0]] + "z" + "yx"[odd[0] :]


def _ordered(shape: tuple[int, int, int], axes: str) -> tuple[int, int, int]:
    slices, rows, columns = (shape[axes.index(axis)] for axis in "zyx")
    return slices, rows, columns


def _values(layers: list[list[Float32Array]], network: GradeNetwork, shape: tuple[int, int, int], axes: str) -> Values:
    """The parameters under our names, in our order of axes."""
    pooled = tuple(size // 4 for size in shape)
    flat = (*pooled, FILTERS[1])
    names = list(_LAYERS)
    expected = [
        (3, 3, 3, 1, FILTERS[0]),
        (3, 3, 3, FILTERS[0], FILTERS[1]),
        (int(np.prod(flat)), WIDTHS[0]),
        WIDTHS,
        (WIDTHS[1], 1),
    ]
    found = [tuple(weights[0].shape) for weights in layers]
    if found != expected or any(len(weights) != 2 for weights in layers):
        raise ValueError(f"its kernels are {found}, expected {expected}, each with a bias")
    order = [axes.index(axis) for axis in "zyx"]
    kernels = [weights[0] for weights in layers]
    kernels[:2] = [kernel.transpose(4, 3, *order) for kernel in kernels[:2]]
    dense = kernels[2].reshape(*flat, WIDTHS[0]).transpose(4, 3, *order)
    kernels[2:] = [dense.reshape(WIDTHS[0], -1), *(kernel.T for kernel in kernels[3:])]
    values: Values = {}
    for name, kernel, (_, bias) in zip(names, kernels, layers, strict=True):
        values |= {f"{name}.weight": np.ascontiguousarray(kernel), f"{name}.bias": bias}
    for name, expect in network.parameters.items():
        if values[name].shape != expect:
            raise ValueError(f"{name} has the shape {values[name].shape}, expected {expect}")
        if not np.isfinite(values[name]).all():
            raise ValueError(f"{name} has values that are not finite")
    return values
