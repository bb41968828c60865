"""Read and write a trained grade network: safetensors with metadata, which cannot contain code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from prognosis_dask.errors import CaseError, WeightsError
from prognosis_dask.networks.grade_network import GradeNetwork, feature_names
from prognosis_dask.networks.training import Epoch, Trained
from prognosis_dask.networks.weights import parse_safetensors, write_safetensors
from prognosis_dask.objects.files import read_bytes

#: Name of the array with :attr:`Trained.scale`; no parameter has this name.
_SCALE = "features.usual"


def trained_bytes(trained: Trained) -> bytes:
    """The file's content: parameters and features' scale; input's shape, curve, epoch and origin in the metadata."""
    metadata = {
        "input_shape": json.dumps(trained.network.input_shape),
        "epoch": str(trained.epoch),
        "origin": trained.origin,
        "curve": json.dumps([[repr(loss) for loss in asdict(epoch).values()] for epoch in trained.curve]),
    }
    return write_safetensors({**trained.values, _SCALE: trained.scale}, metadata)


def read_trained(path: Path | str) -> Trained:
    """The network in a file that holds :func:`trained_bytes`.

    Raises
    ------
    WeightsError
        When the file is missing, of another kind, or lacks this network's parameters.
    """
    try:
        values, metadata = parse_safetensors(read_bytes(str(path)))
        first, second, third = json.loads(metadata["input_shape"])
        network = GradeNetwork((first, second, third))
        curve = tuple(Epoch(*map(float, losses)) for losses in json.loads(metadata["curve"]))
        epoch, origin = int(metadata["epoch"]), metadata.get("origin", "")
    except (OSError, CaseError) as error:
        raise WeightsError(f"cannot read the grade network {path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} holds no grade network ({error}); expected a file that a run wrote as networks/network.safetensors"
        ) from error
    found = {name: array.shape for name, array in values.items()}
    expected = {**network.parameters, _SCALE: (2, len(feature_names()))}
    if found != expected:
        wrong = [name for name in expected if found.get(name) != expected[name]]
        raise WeightsError(
            f"{path} does not fit a network on {network.input_shape}: {', '.join(wrong or found)} lack or differ"
        )
    if not all(np.isfinite(array).all() for array in values.values()):
        raise WeightsError(f"{path} contains parameters that are not finite: train the network again")
    return Trained(network, {name: values[name] for name in network.parameters}, values[_SCALE], curve, epoch, origin)
