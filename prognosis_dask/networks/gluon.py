"""All that MXNet computes: GluonCV's networks, and the grade network with its training."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.errors import ClusterError
from prognosis_dask.networks.catalogue import Network
from prognosis_dask.networks.clips import CLIP_SIZE
from prognosis_dask.networks.gluon_import import import_gluon
from prognosis_dask.networks.grade_network import EPSILON, FILTERS, WIDTHS, GradeNetwork, Hidden, Values
from prognosis_dask.networks.weights import Weights


class GluonEngine:
    """A GluonCV network. See :class:`prognosis_dask.networks.engine.Engine`.

    The network always runs on ``rows`` clips at once; see :func:`prognosis_dask.networks.engine.rows_together`.

    Raises
    ------
    ClusterError
        When ``device`` is ``gpu`` and MXNet finds none.
    """

    def __init__(
        self, network: Network, weights: Weights, *, output: str, device: str, rows: int, key: str = "deep"
    ) -> None:
        self.feature_names = network.feature_names(output)
        self._min_length = network.min_length
        self._clip = network.clip
        self.rows = rows
        gluoncv = import_gluon()
        import mxnet as mx

        self._mx = mx
        self._context = _context(mx, device, key)
        pooled = {"feat_ext": True} if output == "pooled" else {}
        self._block = gluoncv.model_zoo.get_model(
            network.name, pretrained=False, pretrained_base=False, ctx=self._context, **pooled
        )
        _set_parameters(mx, self._block, weights)
        self._lock = threading.Lock()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Parameter .* is not used by any computation", UserWarning)
            _compile(mx, self._block, self._context, network.min_length)

    def features(self, clips: Float32Array) -> Float32Array:
        """Run clips of one length: (n, 3, T, 224, 224) float32 to (n, F) float32."""
        fits = clips.ndim == 5 and clips.shape[1::2] == (3, CLIP_SIZE) and clips.shape[4] == CLIP_SIZE
        length, least = clips.shape[2] if fits else 0, self._min_length
        if length < least or (self._clip.frames and length > least) or clips.dtype != np.float32:
            raise ValueError(
                f"clips are {clips.dtype} of shape {clips.shape}; expected float32 of shape "
                f"(n, 3, {least}{'' if self._clip.frames else ' or more'}, {CLIP_SIZE}, {CLIP_SIZE})"
            )
        values = np.empty((len(clips), len(self.feature_names)), np.float32)
        with self._lock:  # MXNet's static buffers allow one call at a time
            for start in range(0, len(clips), self.rows):
                part = clips[start : start + self.rows]
                values[start : start + len(part)] = self._run(part)[: len(part)]
        return values

    def features_of_frames(self, frames: Sequence[ByteArray]) -> Float32Array:
        """Run regions of one number of slices: n times (slice, 128, 128) uint8 to (n, F) float32."""
        return self.features(np.stack([self._clip.make(region) for region in frames]))

    def _run(self, clips: Float32Array) -> Any:
        if len(clips) < self.rows:
            empty = np.zeros((self.rows - len(clips), *clips.shape[1:]), np.float32)
            clips = np.concatenate([clips, empty])
        return self._block(_array(self._mx, clips).as_in_context(self._context)).asnumpy().reshape(self.rows, -1)


def _context(mx: Any, device: str, key: str) -> Any:
    if device == "cpu":
        return mx.cpu()
    if mx.context.num_gpus() == 0:
        raise ClusterError(
            f"{key}.device is 'gpu', but MXNet sees no GPU here. It needs an NVIDIA card up to Ampere and its CUDA "
            f"build in place of mxnet (pip install 'prognosis-dask[gluon-cuda]'); or set {key}.device = 'cpu'"
        )
    # benchmarking at run time could choose another algorithm, with other last bits, in the next run
    os.environ.setdefault("MXNET_CUDNN_AUTOTUNE_DEFAULT", "0")
    return mx.gpu()


def _set_parameters(mx: Any, block: Any, weights: Weights) -> None:
    parameters = block._collect_params_with_prefix()
    for name, values in weights.values.items():
        parameters[name].set_data(_array(mx, values))


def _array(mx: Any, values: Float32Array) -> Any:
    # mx.nd.array uses a deprecated part of SciPy
    return mx.nd.from_numpy(np.ascontiguousarray(values), zero_copy=False)


def _compile(mx: Any, block: Any, context: Any, length: int) -> None:
    if context.device_type == "gpu":
        block.hybridize(static_alloc=True, static_shape=True)
        return
    # oneDNN fuses each convolution with its normalisation and activation: 1.9 times the speed
    example = mx.nd.zeros((1, 3, length, CLIP_SIZE, CLIP_SIZE), ctx=context)
    block.optimize_for(example, backend="MKLDNN", static_alloc=True, static_shape=True)


class GluonTrainer:
    """See :class:`networks.training.GradeTrainer`. MXNet computes in one thread.

    Raises
    ------
    MissingExtraError, ClusterError
        If MXNet is not installed, or ``device`` is ``gpu`` and MXNet finds none.
    """

    def __init__(self, network: GradeNetwork, values: Values, *, device: str, learning_rate: float) -> None:
        import_gluon()
        import mxnet as mx

        if device == "gpu" and mx.context.num_gpus() == 0:
            raise ClusterError("the network is to be trained on a GPU, but MXNet finds none here; use device 'cpu'")
        self._mx = mx
        self._context = mx.gpu() if device == "gpu" else mx.cpu()
        self._block = _block(mx, network)
        self._block.initialize(mx.init.Zero(), ctx=self._context)
        self._parameters = self._block._collect_params_with_prefix()
        for name, array in values.items():
            self._parameters[name].set_data(self._array(array))
        self._block.hybridize()
        self._trainer = mx.gluon.Trainer(
            self._block.collect_params(),
            "adam",
            {"learning_rate": learning_rate, "epsilon": EPSILON},
            kvstore=None,
        )

    def step(self, volumes: Float32Array, labels: Float32Array, weights: Float32Array, kept: Hidden) -> float:
        """One step of Adam on a batch; returns the loss before the step."""
        y, weight = self._array(labels), self._array(weights)
        with self._mx.autograd.record():
            _, _, z = self._block(self._array(volumes[:, None]), *map(self._array, kept))
            z = z.reshape(-1)
            cross_entropy = self._mx.nd.relu(z) - z * y + self._mx.nd.Activation(-z.abs(), act_type="softrelu")
            loss = (weight * cross_entropy).mean()
        loss.backward()
        self._trainer.step(1)
        return float(loss.asscalar())

    def run(self, volumes: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Activations of the two hidden layers (n, 512) and (n, 32), and the logits (n), without dropout."""
        ones = [self._mx.nd.ones((len(volumes), width), ctx=self._context) for width in WIDTHS]
        first, second, z = self._block(self._array(volumes[:, None]), *ones)
        return first.asnumpy(), second.asnumpy(), z.asnumpy().reshape(-1)

    def values(self) -> Values:
        """The current parameters."""
        return {name: parameter.data(self._context).asnumpy() for name, parameter in self._parameters.items()}

    def _array(self, values: Float32Array) -> Any:
        # mx.nd.array uses a deprecated part of SciPy
        array = self._mx.nd.from_numpy(np.ascontiguousarray(values, np.float32), zero_copy=False)
        return array.as_in_context(self._context)


def _block(mx: Any, network: GradeNetwork) -> Any:
    nn = mx.gluon.nn
    (flat,) = network.layers["flat"]

    class Block(mx.gluon.HybridBlock):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            with self.name_scope():
                self.conv_1 = nn.Conv3D(FILTERS[0], 3, padding=1, in_channels=1)
                self.conv_2 = nn.Conv3D(FILTERS[1], 3, padding=1, in_channels=FILTERS[0])
                self.pool = nn.MaxPool3D(2)
                self.dense_1 = nn.Dense(WIDTHS[0], in_units=flat, activation="relu")
                self.dense_2 = nn.Dense(WIDTHS[1], in_units=WIDTHS[0], activation="relu")
                self.output = nn.Dense(1, in_units=WIDTHS[1])

        def hybrid_forward(self, F: Any, x: Any, kept_1: Any, kept_2: Any) -> Any:
            x = self.pool(self.conv_2(self.pool(self.conv_1(x))))
            first = self.dense_1(x)
            second = self.dense_2(first * kept_1)
            return first, second, self.output(second * kept_2)

    return Block()
