"""Convolutions of 3 x 3 x 3 by Winograd's minimal filtering, F(4 x 4, 3 x 3) in the plane: a quarter of the products.

Four outputs along a line are sums of six products instead of twelve: of three kernel values and six inputs, both taken
as polynomials, at six points (Lavin and Gray 2016, arXiv:1509.09308; Toom-Cook). Along slices the sum stays as it is.
The points 0, +-3/4, +-3/2 and infinity round least of those tried, and their matrices are exact in float32. Kernels are
brought there once, in float64.

On a CPU, in float32. A few rows of tiles are taken at a time, as many as its cache holds; their products are a
convolution of 36 groups to oneDNN.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prognosis_dask.arrays import FloatArray

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
#: Outputs of a tile along an axis, and inputs under them.
_OUT, _IN = 4, 6
#: Tiles of each slice that are computed together.
_TOGETHER = 28
#: Of more outputs than this, the number is filled up to a multiple of 64: oneDNN wants kernels in the same layout then,
#: whatever the clip's length.
_SMALL = 256


def toom_cook() -> tuple[FloatArray, FloatArray, FloatArray]:
    """The matrices A (4, 6), G (6, 3) and B (6, 6): kernel g over inputs d gives ``A @ ((G @ g) * (B @ d))``.

    >>> A, G, B = toom_cook()
    >>> (A @ ((G @ [1, 2, 4]) * (B @ [1, 0, 0, 1, 1, 0]))).round(12).tolist()
    [1.0, 4.0, 6.0, 3.0]
    """
    points = np.array(_POINTS)
    others = [np.delete(points, n) for n in range(len(points))]
    output = np.zeros((_OUT, _IN))
    output[:, :-1] = points ** np.arange(_OUT)[:, None]
    output[-1, -1] = 1
    kernel = np.zeros((_IN, 3))
    kernel[:-1] = points[:, None] ** np.arange(3)
    kernel[:-1] /= [[np.prod(point - rest)] for point, rest in zip(points, others, strict=True)]
    kernel[-1, -1] = 1
    values = np.zeros((_IN, _IN))
    for row, roots in zip(values, [*others, points], strict=True):
        row[: len(roots) + 1] = np.poly(roots)[::-1]
    return output, kernel, values


class WinogradConvolution:
    """A 3 x 3 x 3 convolution of stride 1 and padding 1 with ReLU behind it, in float32.

    Parameters
    ----------
    kernels, bias
        (out, in, 3, 3, 3) and (out), float64.
    """

    def __init__(self, kernels: FloatArray, bias: FloatArray) -> None:
        self._outputs = len(kernels)
        spare = -self._outputs % 64 if self._outputs > _SMALL else 0
        self._computed = self._outputs + spare
        output, kernel, values = toom_cook()
        points = np.einsum("ph,qw,octhw->pqoct", kernel, kernel, kernels, optimize=True)
        points = np.pad(points, [(0, 0), (0, 0), (0, spare), (0, 0), (0, 0)])
        inputs = points.shape[3]
        # slices lie behind each other in one line: the next one begins a row of tiles further on
        self._kernels = torch.ops.mkldnn._reorder_convolution_weight(
            torch.from_numpy(points.reshape(-1, inputs, 1, 1, 3).astype(np.float32)),
            [0, 0, 0],
            [1, 1, 1],
            [1, 1, _TOGETHER],
            _IN**2,
            [1, _IN**2 * inputs, 1, 1, 8 * _TOGETHER],
        )
        self._bias = torch.from_numpy(bias.astype(np.float32))
        self._to_points = torch.from_numpy(np.kron(values, values).astype(np.float32))
        self._from_points = torch.from_numpy(np.kron(output, output).astype(np.float32))

    def __call__(self, x: Tensor) -> Tensor:
        """(n, in, T, H, W) to (n, out, T, H, W), in channels-last memory. A clip's values do not depend on ``n``."""
        return torch.stack([self._clip(clip) for clip in x.permute(0, 2, 3, 4, 1)]).permute(0, 4, 1, 2, 3)

    def _clip(self, x: Tensor) -> Tensor:
        """(T, H, W, in) to (T, H, W, out)."""
        frames, height, width, _ = x.shape
        rows, columns = -(-height // _OUT), -(-width // _OUT)
        wide = functional.pad(x, (0, 0, 1, _OUT * columns + 1 - width, 1, _OUT * rows + 1 - height, 1, 1))
        y = x.new_empty(frames, rows, _OUT, columns, _OUT, self._outputs)
        starts = [*range(0, rows, max(1, _TOGETHER // columns)), rows]
        for first, stop in pairwise(starts):
            part = y[:, first:stop]
            torch.add(self._tiles(wide, first, stop, columns), self._bias, out=part)
            part.relu_()
        return y.view(frames, _OUT * rows, _OUT * columns, self._outputs)[:, :height, :width]

    def _tiles(self, wide: Tensor, first: int, stop: int, columns: int) -> Tensor:
        """The sums of some rows of tiles, (T, row, 4, column, 4, out), from the padded (T + 2, H, W, in)."""
        slices, inputs = wide.shape[0], wide.shape[3]
        far, line, pixel, _ = wide.stride()
        tiles = (slices, stop - first, columns, _IN, _IN, inputs)
        under = wide.as_strided(tiles, (far, _OUT * line, _OUT * pixel, line, pixel, 1), first * _OUT * line)
        in_slice = (stop - first) * columns
        at_points = torch.matmul(self._to_points, under.reshape(-1, _IN**2, inputs))
        sums = torch.ops.mkldnn._convolution_pointwise(
            at_points.view(1, 1, 1, slices * in_slice, _IN**2 * inputs).permute(0, 4, 1, 2, 3),
            self._kernels,
            None,
            [0, 0, 0],
            [1, 1, 1],
            [1, 1, in_slice],
            _IN**2,
            "none",
            [],
            "",
        )
        y = torch.matmul(self._from_points, sums.permute(0, 2, 3, 4, 1).reshape(-1, _IN**2, self._computed))
        y = y.view(slices - 2, stop - first, columns, _OUT, _OUT, self._computed)[..., : self._outputs]
        return y.permute(0, 1, 3, 2, 4, 5)
