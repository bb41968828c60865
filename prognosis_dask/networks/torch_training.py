"""The grade network in torch: training and inference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prognosis_dask.arrays import Float32Array
from prognosis_dask.errors import ClusterError
from prognosis_dask.networks.grade_network import EPSILON, GradeNetwork, Hidden, Values
from prognosis_dask.networks.torch_support import repeatable


class TorchTrainer:
    """See :class:`prognosis_dask.networks.training.GradeTrainer`. It uses one thread on a CPU.

    Raises
    ------
    ClusterError
        When ``device`` is ``gpu`` and torch sees none.
    """

    def __init__(self, network: GradeNetwork, values: Values, *, device: str, learning_rate: float) -> None:
        if device == "gpu" and not torch.cuda.is_available():
            raise ClusterError(
                f"the network is to be trained on a GPU, but torch {torch.__version__} finds none here; "
                "use device 'cpu'"
            )
        self._device = torch.device("cuda" if device == "gpu" else "cpu")
        self._parameters = {
            name: nn.Parameter(torch.from_numpy(array.copy()).to(self._device)) for name, array in values.items()
        }
        self._adam = torch.optim.Adam(self._parameters.values(), lr=learning_rate, eps=EPSILON)

    def step(self, volumes: Float32Array, labels: Float32Array, weights: Float32Array, kept: Hidden) -> float:
        """One step of Adam on a batch; returns the loss before the step."""
        with repeatable(gradients=True):
            _, _, z = self._forward(self._tensor(volumes), *map(self._tensor, kept))
            loss = functional.binary_cross_entropy_with_logits(z, self._tensor(labels), self._tensor(weights))
            self._adam.zero_grad()
            loss.backward()
            self._adam.step()
            return float(loss.item())

    def run(self, volumes: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Activations of the two hidden layers (n, 512) and (n, 32), and the logits (n), without dropout."""
        with repeatable():
            first, second, z = self._forward(self._tensor(volumes), torch.ones(()), torch.ones(()))
            return first.cpu().numpy(), second.cpu().numpy(), z.cpu().numpy()

    def values(self) -> Values:
        """The current parameters."""
        return {name: parameter.detach().cpu().numpy().copy() for name, parameter in self._parameters.items()}

    def _forward(self, volumes: Tensor, kept_1: Tensor, kept_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = volumes[:, None]
        for name in ("conv_1", "conv_2"):
            # windows do not overlap, so gradients are not summed and this is reproducible on a GPU too
            x = functional.max_pool3d(functional.conv3d(x, *self._layer(name), padding=1), 2)
        first = functional.relu(functional.linear(x.flatten(1), *self._layer("dense_1")))
        second = functional.relu(functional.linear(first * kept_1.to(first.device), *self._layer("dense_2")))
        logit = functional.linear(second * kept_2.to(second.device), *self._layer("output"))
        return first, second, logit[:, 0]

    def _layer(self, name: str) -> tuple[Tensor, Tensor]:
        return self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]

    def _tensor(self, values: Float32Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)
