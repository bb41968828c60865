"""The grade network in Gluon: training and inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from prognosis_dask.arrays import Float32Array
from prognosis_dask.errors import ClusterError
from prognosis_dask.networks.gluon_import import import_gluon
from prognosis_dask.networks.grade_network import EPSILON, FILTERS, WIDTHS, GradeNetwork, Hidden, Values


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
