"""The study's 3D convolutional network for the grade, described without a library that runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import Float32Array
from prognosis_dask.networks.volume_input import STUDY_SHAPE

Values = dict[str, Float32Array]

#: Filters of the two convolutions (3 x 3 x 3, same padding), each followed by max pooling over 2 x 2 x 2.
FILTERS = (32, 64)
#: Width of the two hidden layers, and their dropout rates.
WIDTHS = (512, 32)
DROPPED = (0.25, 0.5)
#: Dropout factors of the two hidden layers, (n, 512) and (n, 32): zero, or one over the kept fraction.
Hidden = tuple[Float32Array, Float32Array]
#: Adam's epsilon, as in Keras.
EPSILON = 1e-7


@dataclass(frozen=True)
class GradeNetwork:
    """Convolution 32, maximum, convolution 64, maximum, dense 512 and 32 with ReLU and dropout, dense 1, sigmoid.

    As in the study, the convolutions have no activation; max pooling separates them.

    Attributes
    ----------
    input_shape
        Slices, rows and columns of a volume; the study's are 20, 64 and 64.
    """

    input_shape: tuple[int, int, int] = STUDY_SHAPE

    def __post_init__(self) -> None:
        if min(self.input_shape) < 4:
            raise ValueError(f"volumes are {self.input_shape}; two poolings need 4 or more voxels on every axis")

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Output shape of each layer for one volume, channels first.

        >>> GradeNetwork().layers["pool_2"], GradeNetwork().layers["flat"]
        ((64, 5, 16, 16), (81920,))
        """
        shapes: dict[str, tuple[int, ...]] = {}
        size = self.input_shape
        for number, filters in enumerate(FILTERS, 1):
            shapes[f"conv_{number}"] = (filters, *size)
            size = (size[0] // 2, size[1] // 2, size[2] // 2)
            shapes[f"pool_{number}"] = (filters, *size)
        shapes["flat"] = (FILTERS[-1] * math.prod(size),)
        return shapes | {"dense_1": (WIDTHS[0],), "dense_2": (WIDTHS[1],), "output": (1,)}

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order of computation; kernels are (out, in, slice, row, column).

        >>> sum(math.prod(shape) for shape in GradeNetwork().parameters.values())
        42016257
        """
        (flat,) = self.layers["flat"]
        kernels = {
            "conv_1": (FILTERS[0], 1, 3, 3, 3),
            "conv_2": (FILTERS[1], FILTERS[0], 3, 3, 3),
            "dense_1": (WIDTHS[0], flat),
            "dense_2": (WIDTHS[1], WIDTHS[0]),
            "output": (1, WIDTHS[1]),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in kernels.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes

    def draw(self, rng: np.random.Generator) -> Values:
        """Values to begin with: uniform within sqrt(6 / (fan in + fan out)), biases zero, as Keras has it.

        Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".
        """
        values: Values = {}
        for name, shape in self.parameters.items():
            if name.endswith("bias"):
                values[name] = np.zeros(shape, np.float32)
                continue
            bound = np.float32(math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:]))))
            values[name] = (2 * rng.random(shape, dtype=np.float32) - 1) * bound
        return values


def feature_names() -> tuple[str, ...]:
    """The deep features: what the 512 and the 32 wide layer give after their ReLU.

    >>> len(feature_names()), feature_names()[0], feature_names()[-1]
    (544, 'dense512_000', 'dense32_31')
    """
    return tuple(f"dense{width}_{index:0{len(str(width - 1))}}" for width in WIDTHS for index in range(width))
