"""What can be worked out once, before any clip is seen, without changing a feature.

Batch normalisation is a scale and a shift per channel, which the convolution before it can carry. The three channels of
a clip are one grey image, scaled and shifted three ways, which the first convolution can carry too. All of it is done
in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prognosis_dask.deep.clips import MEAN, STD
from prognosis_dask.deep.weights import Values

Array = npt.NDArray[np.float64]

#: GluonCV's epsilon of batch normalisation.
EPSILON = 1e-3

#: Grey levels go in less this number: what remains fits bfloat16 without rounding, and is near zero where the
#: normalised channels are, so that little cancels between kernels and bias.
GREY_ZERO = 114


@dataclass(frozen=True)
class Convolution:
    """A convolution with the batch normalisation after it: kernels (out, in, T, H, W) and bias (out), float64."""

    kernels: Array
    bias: Array


@dataclass(frozen=True)
class GreyStem:
    """The first convolution for one grey channel.

    Attributes
    ----------
    convolution
        For grey levels less :data:`GREY_ZERO`, one channel. Its bias is right where the kernel lies inside the clip.
    constant
        (out, T, H, W): the kernels that the constant part of the three normalised channels meets. Zeros are padded
        after normalisation, so the part of these kernels that lies outside the clip has to be taken off again.
    """

    convolution: Convolution
    constant: Array


def unit_names(values: Values) -> tuple[str, ...]:
    """The convolutions of a network, in order, as ``features.0`` or ``features.5.1.0``."""
    return tuple(name.removesuffix(".0.weight") for name in values if name.endswith(".0.weight"))


def fold_normalisation(values: Values, unit: str) -> Convolution:
    """A unit's convolution and batch normalisation as one convolution (Jacob et al. 2018, arXiv:1712.05877, eq. 14)."""
    gamma, beta, mean, variance = (
        values[f"{unit}.1.{name}"].astype(np.float64) for name in ("gamma", "beta", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    kernels = values[f"{unit}.0.weight"].astype(np.float64) * scale[:, None, None, None, None]
    return Convolution(kernels, beta - mean * scale)


def fold_grey(stem: Convolution) -> GreyStem:
    """The first convolution, which takes three normalised channels, as one that takes a grey image.

    Channel c of a clip is ``(grey / 255 - MEAN[c]) / STD[c] = scale[c] * (grey - GREY_ZERO) + shift[c]``.
    """
    scale = 1 / (255 * np.array(STD))
    shift = (GREY_ZERO / 255 - np.array(MEAN)) / np.array(STD)
    kernels = np.einsum("octhw,c->othw", stem.kernels, scale)[:, None]
    constant = np.einsum("octhw,c->othw", stem.kernels, shift)
    return GreyStem(Convolution(kernels, stem.bias + constant.sum(axis=(1, 2, 3))), constant)
