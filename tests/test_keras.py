"""The study's network as Keras saved it: the values are those of Keras' own semantics, other networks are refused."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from prognosis_dask.cli import main as cli
from prognosis_dask.config.job import GradeSection
from prognosis_dask.errors import WeightsError
from prognosis_dask.networks.keras_file import read_keras
from prognosis_dask.networks.training import read_trained, run_network
from tests.grade_network_run import make_prepared_cases, write_run
from tests.training_cases import installed

SLICES, ROWS, COLUMNS = 8, 13, 10
LENGTHS = {"z": SLICES, "y": ROWS, "x": COLUMNS}
CLASSES = [
    "Conv3D",
    "MaxPooling3D",
    "Conv3D",
    "MaxPooling3D",
    "Flatten",
    "Dense",
    "Dropout",
    "Dense",
    "Dropout",
    "Dense",
]
NAMES = ["conv3d_3", "max_3", "conv3d_4", "max_4", "flatten_1", "dense_7", "drop_1", "dense_8", "drop_2", "dense_9"]


def drawn(shape: tuple[int, ...], seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Kernels in Keras' order and biases, for an input of ``shape``."""
    rng = np.random.default_rng(seed)
    flat = 64 * int(np.prod([size // 4 for size in shape]))
    kernels = [(3, 3, 3, 1, 32), (3, 3, 3, 32, 64), (flat, 512), (512, 32), (32, 1)]
    return {
        name: [
            rng.normal(0, 1 / np.sqrt(np.prod(kernel[:-1])), kernel).astype(np.float32),
            rng.normal(0, 0.1, kernel[-1]).astype(np.float32),
        ]
        for name, kernel in zip([name for name in NAMES if name[0] == "c" or "dense" in name], kernels, strict=True)
    }


def keras(weights: dict[str, list[np.ndarray]], volume: np.ndarray) -> float:
    """What Keras computes of a volume (axis, axis, axis, channel): every sum written out."""
    layers = list(weights.values())
    values = volume.astype(float)
    for kernel, bias in layers[:2]:
        size = values.shape[:3]
        padded = np.pad(values, [(1, 1)] * 3 + [(0, 0)])
        values = np.zeros((*size, kernel.shape[-1])) + bias
        for i, j, k in itertools.product(range(3), repeat=3):
            values += padded[i : i + size[0], j : j + size[1], k : k + size[2]] @ kernel[i, j, k].astype(float)
        half = tuple(length // 2 for length in size)
        pooled = np.full((*half, kernel.shape[-1]), -np.inf)
        for a, b, c in itertools.product(*map(range, half)):
            pooled[a, b, c] = values[2 * a : 2 * a + 2, 2 * b : 2 * b + 2, 2 * c : 2 * c + 2].max((0, 1, 2))
        values = pooled
    flat = values.reshape(-1)
    for kernel, bias in layers[2:4]:
        flat = np.maximum(flat @ kernel.astype(float) + bias, 0)
    kernel, bias = layers[4]
    return float(1 / (1 + np.exp(-(flat @ kernel.astype(float) + bias)[0])))


def layers(shape: tuple[int, ...], **changed: Any) -> list[dict[str, Any]]:
    """The layers as ``model_config`` of Keras 2 has them."""
    found = []
    for name, kind in zip(NAMES, CLASSES, strict=True):
        config: dict[str, Any] = {"name": name}
        if kind == "Conv3D":
            config |= {"padding": "same", "activation": "linear", "strides": [1, 1, 1], "data_format": "channels_last"}
        if kind == "Dense":
            config |= {"activation": "sigmoid" if name == "dense_9" else "relu"}
        found.append({"class_name": kind, "config": config | changed.get(name, {})})
    found[0]["config"]["batch_input_shape"] = [None, *shape, 1]
    return found


def save(path: Path, weights: dict[str, list[np.ndarray]], config: list[dict[str, Any]] | None) -> Path:
    """As ``model.save`` writes it, or ``save_weights`` without a configuration."""
    with h5py.File(path, "w") as file:
        if config is not None:
            file.attrs["model_config"] = json.dumps(
                {"class_name": "Sequential", "config": {"name": "sequential_1", "layers": config}}
            ).encode()
        group = file if config is None else file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in NAMES]
        for layer in NAMES:
            held = group.create_group(layer)
            names = [f"{layer}/{part}:0" for part in ("kernel", "bias")] if layer in weights else []
            held.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, weights.get(layer, []), strict=True):
                held[name] = array
    return path


def save_3(path: Path, weights: dict[str, list[np.ndarray]], config: list[dict[str, Any]] | None) -> Path:
    """As Keras 3.15 writes ``.keras``, or ``.weights.h5`` without a configuration: layers numbered by their class."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_group("vars")
        for layer in ("flatten", "dropout", "dropout_1", "max_pooling3d", "max_pooling3d_1"):
            file.create_group(f"layers/{layer}/vars")
        for layer, held in zip(("conv3d", "conv3d_1", "dense", "dense_1", "dense_2"), weights.values(), strict=True):
            for at, array in enumerate(held):
                file[f"layers/{layer}/vars/{at}"] = array
    if config is None:
        path.write_bytes(content.getvalue())
        return path
    begin = {"class_name": "InputLayer", "config": {"batch_shape": config[0]["config"].pop("batch_input_shape")}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr(
            "config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [begin, *config]}})
        )
        archive.writestr("model.weights.h5", content.getvalue())
    return path


@pytest.mark.parametrize("whole", [True, False], ids=["model.save", "save_weights"])
@pytest.mark.parametrize(("axes", "save"), [("yxz", save), ("zyx", save), ("xyz", save), ("yxz", save_3)])
def test_the_probability_is_that_of_keras_whatever_the_order_of_its_axes(tmp_path, axes, whole, save):
    volumes = np.random.default_rng(1).normal(size=(3, SLICES, ROWS, COLUMNS)).astype(np.float32)
    shape = tuple(LENGTHS[axis] for axis in axes)
    weights = drawn(shape)
    path = save(tmp_path / "brain_model.h5", weights, layers(shape) if whole else None)
    trained = read_keras(path, axes=axes, input_shape=None if whole else shape)
    _, found = run_network(trained, volumes, GradeSection(engine=installed()))
    as_keras_has_it = [volume.transpose(["zyx".index(axis) for axis in axes])[..., None] for volume in volumes]
    expected = [keras(weights, volume) for volume in as_keras_has_it]
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_slices_are_the_axis_of_another_length(tmp_path):
    for shape in ((8, 8, 5), (5, 8, 8)):
        trained = read_keras(save(tmp_path / "m.h5", drawn(shape), layers(shape)))
        assert trained.network.input_shape == (5, 8, 8)
    with pytest.raises(WeightsError, match=r"which axis .* are the slices is not clear; give --axes"):
        read_keras(save(tmp_path / "m.h5", drawn((8, 8, 8)), layers((8, 8, 8))))
    with pytest.raises(WeightsError, match="give --shape and --axes"):
        read_keras(save(tmp_path / "m.h5", drawn((8, 8, 5)), None))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"conv3d_3": {"activation": "relu"}}, "conv3d_3 has activation 'relu'; expected 'linear'"),
        ({"conv3d_4": {"data_format": "channels_first"}}, "conv3d_4 has data_format 'channels_first'"),
        ({"max_4": {"pool_size": [3, 3, 3]}}, r"max_4 has pool_size \[3, 3, 3\]"),
        ({"dense_9": {"activation": "softmax"}}, "dense_9 has activation 'softmax'"),
        ({"flatten_1": {"data_format": "channels_first"}}, "flatten_1 has data_format 'channels_first'"),
    ],
)
def test_a_network_that_computes_something_else_is_refused(tmp_path, changed, says):
    for write, name in ((save, "m.h5"), (save_3, "m.keras")):
        with pytest.raises(WeightsError, match=says):
            read_keras(write(tmp_path / name, drawn((8, 8, 5)), layers((8, 8, 5), **changed)))


def test_what_is_no_such_file_is_refused(tmp_path):
    with pytest.raises(
        WeightsError, match=r"no file at .*m\.h5; expected a network that Keras saved as \.h5 or \.keras"
    ):
        read_keras(tmp_path / "m.h5")
    (tmp_path / "m.h5").write_bytes(b"no HDF5")
    with pytest.raises(WeightsError, match=r"is no network that Keras saved as \.h5 or \.keras"):
        read_keras(tmp_path / "m.h5")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(WeightsError, match=r"is no network that Keras saved as \.h5 or \.keras"):
        read_keras(tmp_path / "m.keras")
    with h5py.File(save_3(tmp_path / "m.weights.h5", drawn((8, 8, 5)), None), "a") as file:
        file["layers/dense_3/vars/0"] = np.zeros((1, 1), np.float32)
    with pytest.raises(WeightsError, match=r"weights are of the layers .*dense_3"):
        read_keras(tmp_path / "m.weights.h5", input_shape=(8, 8, 5))
    more = layers((8, 8, 5))
    more.insert(1, {"class_name": "BatchNormalization", "config": {"name": "norm"}})
    with pytest.raises(WeightsError, match="it has a layer BatchNormalization"):
        read_keras(save(tmp_path / "m.h5", drawn((8, 8, 5)), more))
    wider = drawn((8, 8, 5)) | {"dense_8": [np.zeros((512, 64), np.float32), np.zeros(64, np.float32)]}
    with pytest.raises(WeightsError, match=r"its kernels are .*\(512, 64\).*expected"):
        read_keras(save(tmp_path / "m.h5", wider, layers((8, 8, 5))))


def test_the_command_writes_the_network_and_what_it_says_of_a_runs_brains(tmp_path, capsys):
    run = tmp_path / "run"
    write_run(make_prepared_cases(run), run)
    shape = (64, 64, 20)
    source = save(tmp_path / "brain_model.h5", drawn(shape), layers(shape))
    out = tmp_path / "network.safetensors"
    cli.main(["weights", "keras", str(source), str(out), "--run", str(run)])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "network.csv")
    written, read = read_trained(out), read_keras(source)
    assert written.sha256 == read.sha256
    table = pd.read_csv(tmp_path / "network.csv")
    assert list(table.case_id) == [f"case-{number}" for number in range(14)]
    assert table.probability.between(0, 1).all()
    assert table.probability.nunique() == 14
