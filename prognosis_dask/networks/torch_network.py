"""Inception v1 inflated to 3D, as GluonCV has it, in torch.

Paddings are GluonCV's, not those of the original (Carreira and Zisserman 2017, arXiv:1705.07750): symmetric everywhere,
and the last max pooling without any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prognosis_dask.arrays import FloatArray
from prognosis_dask.networks.clips import CLIP_SIZE, MEAN, STD
from prognosis_dask.networks.weights import Values

#: Puts zeros behind each clip's end.
Clear = Callable[[Tensor], Tensor]

_STEM = "features.0"
#: Kernel size to padding.
_PADDING = {1: 0, 3: 1, 7: 3}
#: Rows and columns of what a layer sees.
_SIDES = {2: 56, 3: 56, 5: 28, 6: 28, 8: 14, 9: 14, 10: 14, 11: 14, 12: 14, 14: 7, 15: 7}
#: oneDNN lays out kernels for an input of some length; all lengths are computed equally fast in this layout.
_PACKED_FRAMES = 8
#: Where Winograd's convolution is the faster one: channels in, and rows and columns.
_WINOGRAD_CHANNELS, _WINOGRAD_SIDE = 64, 14

#: GluonCV's epsilon of batch normalisation.
EPSILON = 1e-3

#: Grey levels go in less this number: what remains fits bfloat16 without rounding, and is near zero where the
#: normalised channels are, so that little cancels between kernels and bias.
GREY_ZERO = 114


class ConvolutionUnit(nn.Module):  # type: ignore[misc]
    """Convolution, batch normalisation and ReLU in one.

    On a CPU oneDNN does it in one pass over channels-last memory, with the kernels laid out once for inputs of ``side``
    rows and columns, in float32 with a quarter of the products where those are many
    (:class:`WinogradConvolution`); elsewhere, and in float64, it is torch's own convolution.
    """

    def __init__(self, convolution: Convolution, side: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self._exact: Convolution | None = convolution
        self._side = side
        self.kernels = nn.Parameter(torch.from_numpy(convolution.kernels), requires_grad=False)
        self.bias = nn.Parameter(torch.from_numpy(convolution.bias), requires_grad=False)
        self.stride = [stride] * 3
        self.padding = [_PADDING[convolution.kernels.shape[-1]]] * 3
        self.relu = relu
        self._packed: Tensor | None = None
        self._winograd: WinogradConvolution | None = None

    def pack(self) -> None:
        """Prepare the kernels, float32 or shorter, for a CPU; those in float64 are not needed any more."""
        exact, self._exact = self._exact, None
        _, channels, *size = self.kernels.shape
        if (
            (self.kernels.dtype, size, self.stride) == (torch.float32, [3] * 3, [1] * 3)
            and channels >= _WINOGRAD_CHANNELS
            and self._side >= _WINOGRAD_SIDE
            and exact is not None
        ):
            self._winograd = WinogradConvolution(exact.kernels, exact.bias)
            return
        shape = [1, channels, _PACKED_FRAMES, self._side, self._side]
        self._packed = torch.ops.mkldnn._reorder_convolution_weight(
            self.kernels.data, self.padding, self.stride, [1, 1, 1], 1, shape
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, T, H, W) to (n, out, T', H', W')."""
        if self._winograd is not None:
            return self._winograd(x)
        if self._packed is not None:
            attribute = "relu" if self.relu else "none"
            return torch.ops.mkldnn._convolution_pointwise(
                x, self._packed, self.bias, self.padding, self.stride, [1, 1, 1], 1, attribute, [], ""
            )
        y = functional.conv3d(x, self.kernels, self.bias, self.stride, self.padding)
        return functional.relu_(y) if self.relu else y


class InceptionBlock(nn.Module):  # type: ignore[misc]
    """Four branches beside each other: 1; 1 and 3; 1 and 3; pooling and 1."""

    def __init__(self, units: dict[str, ConvolutionUnit]) -> None:
        super().__init__()
        self.one = units["0.0"]
        self.narrow_a, self.wide_a = units["1.0"], units["1.1"]
        self.narrow_b, self.wide_b = units["2.0"], units["2.1"]
        self.pooled = units["3.1"]

    def forward(self, x: Tensor, clear: Clear) -> Tensor:
        """(n, in, T, H, W) to (n, out, T, H, W); ``clear`` is for what the next layer looks at across frames."""
        branches = (
            self.one(x),
            self.wide_a(clear(self.narrow_a(x))),
            self.wide_b(clear(self.narrow_b(x))),
            self.pooled(largest_around(x)),
        )
        return clear(torch.cat(branches, 1))


def largest_around(x: Tensor) -> Tensor:
    """Max pooling of 3 x 3 x 3 with stride 1 and padding 1, an axis at a time: (n, channel, T, H, W)."""
    if x.device.type != "cpu":
        return functional.max_pool3d(x, 3, 1, 1)
    for axis in (2, 3, 4):
        length = x.shape[axis]
        if length > 1:
            pairs = torch.maximum(x.narrow(axis, 0, length - 1), x.narrow(axis, 1, length - 1))
            x = torch.empty_like(x)
            x.narrow(axis, 0, 1).copy_(pairs.narrow(axis, 0, 1))
            x.narrow(axis, length - 1, 1).copy_(pairs.narrow(axis, length - 2, 1))
            left, right = pairs.narrow(axis, 0, length - 2), pairs.narrow(axis, 1, length - 2)
            torch.maximum(left, right, out=x.narrow(axis, 1, length - 2))
    return x


class ColourStem(nn.Module):  # type: ignore[misc]
    """The first convolution for clips of three normalised channels."""

    def __init__(self, stem: Convolution) -> None:
        super().__init__()
        self.unit = ConvolutionUnit(stem, CLIP_SIZE, stride=2, relu=False)

    def forward(self, clips: Tensor) -> Tensor:
        """(n, 3, T, 224, 224) to (n, 64, T', 112, 112), before ReLU."""
        return self.unit(clips)


class GreyStemLayer(nn.Module):  # type: ignore[misc]
    """The first convolution for grey clips: a third of the arithmetic, and the same values."""

    def __init__(self, stem: GreyStem) -> None:
        super().__init__()
        self.unit = ConvolutionUnit(stem.convolution, CLIP_SIZE, stride=2, relu=False)
        self.constant = nn.Parameter(torch.from_numpy(stem.constant[:, None]), requires_grad=False)
        self._borders: dict[int, tuple[Tensor, ...]] = {}

    def forward(self, grey: Tensor, lengths: Lengths | None = None) -> Tensor:
        """(n, 1, T, 224, 224), grey levels less ``GREY_ZERO``, to (n, 64, T', 112, 112), before ReLU."""
        y: Tensor = self.unit(grey)
        for length, rows in lengths.groups() if lengths else [(grey.shape[2], slice(None))]:
            self._correct(y[rows, :, : (length + 1) // 2], length)
        return y

    def _correct(self, y: Tensor, length: int) -> None:
        """Take off, in place, what the kernels' parts outside the clips brought in with the bias."""
        # where the kernel reaches over the clip's border: the first two outputs of each axis, the last one in the
        # plane, the last one or two (odd lengths) in time
        first, last, top, bottom, left, right = self._border(length)
        end = max(2, y.shape[2] - 2)
        y[:, :, :2] += first
        y[:, :, end:] += last
        inner = y[:, :, 2:end]
        inner[:, :, :, :2] += top
        inner[:, :, :, -1:] += bottom
        inner[:, :, :, 2:-1, :2] += left
        inner[:, :, :, 2:-1, -1:] += right

    def _border(self, length: int) -> tuple[Tensor, ...]:
        """What to add to the outputs at the first and last times, the top, bottom, left and right of a clip.

        It is worked out on 16 x 16 pixels, which have every kind of border; of long clips so have 9 or 10 frames.
        """
        length = length if length < 9 else 10 - length % 2
        if length not in self._borders:
            inside = self.constant.new_ones(1, 1, length, 16, 16)
            border = functional.conv3d(inside, self.constant, None, 2, 3)
            border -= self.constant.sum((1, 2, 3, 4))[:, None, None, None]
            end, inner = max(2, border.shape[2] - 2), border[:, :, 2:3]
            parts = (
                _spread(_spread(border[:, :, :2], 3), 4),
                _spread(_spread(border[:, :, end:], 3), 4),
                _spread(inner[:, :, :, :2], 4),
                _spread(inner[:, :, :, -1:], 4),
                inner[:, :, :, 2:3, :2],
                inner[:, :, :, 2:3, -1:],
            )
            self._borders[length] = tuple(part.contiguous(memory_format=torch.channels_last_3d) for part in parts)
        return self._borders[length]


def _spread(border: Tensor, axis: int) -> Tensor:
    """Eight outputs along an axis to the 112 of a clip: what lies between the borders is all the same."""
    between = CLIP_SIZE // 2 - 3
    return border.index_select(axis, torch.tensor([0, 1, *[2] * between, 7], device=border.device))


class InceptionV1(nn.Module):  # type: ignore[misc]
    """The network from clips, or grey clips, to its features."""

    def __init__(self, values: Values, output: str) -> None:
        """``values`` as in :class:`prognosis_dask.networks.weights.Weights`; ``output``: ``logits`` or ``pooled``."""
        super().__init__()
        folded = {name: fold_normalisation(values, name) for name in unit_names(values)}
        self.colour_stem = ColourStem(folded[_STEM])
        self.grey_stem = GreyStemLayer(fold_grey(folded[_STEM]))
        self.layer_2, self.layer_3 = (ConvolutionUnit(folded[f"features.{n}"], _SIDES[n]) for n in (2, 3))
        branches: dict[int, dict[str, ConvolutionUnit]] = defaultdict(dict)
        for name, convolution in folded.items():
            _, layer, *branch = name.split(".")
            if branch:
                branches[int(layer)][".".join(branch)] = ConvolutionUnit(convolution, _SIDES[int(layer)])
        self.blocks = nn.ModuleDict({str(layer): InceptionBlock(units) for layer, units in branches.items()})
        self.classifier: nn.Linear | None = None
        if output == "logits":
            classes, pooled = values["output.weight"].shape
            self.classifier = nn.Linear(pooled, classes)
            self.classifier.weight.data = torch.from_numpy(values["output.weight"].astype("f8"))
            self.classifier.bias.data = torch.from_numpy(values["output.bias"].astype("f8"))

    def prepare(
        self, device: torch.device, dtype: torch.dtype, layout: torch.memory_format = torch.channels_last_3d
    ) -> InceptionV1:
        """Move it to where it runs.

        The classifier stays in float64: it costs nothing, and no setting of the process makes it less exact.
        """
        self.eval().to(device, dtype).to(memory_format=layout)
        if self.classifier is not None:
            self.classifier.double()
        if device.type == "cpu" and dtype != torch.float64 and torch.backends.mkldnn.is_available():
            for module in self.modules():
                if isinstance(module, ConvolutionUnit):
                    module.pack()
        return self

    def forward(self, clips: Tensor, own: tuple[int, ...] | None = None) -> Tensor:
        """(n, 3, T, 224, 224) normalised, or (n, 1, T, 224, 224) grey less ``GREY_ZERO``; to (n, F).

        Grey clips may be of several lengths: ``own`` frames each, ascending, and zeros behind them.
        """
        lengths = Lengths.of(own, clips.shape[2], clips.device) if own else None
        x = self.grey_stem(clips, lengths) if clips.shape[1] == 1 else self.colour_stem(clips)
        # ReLU and max pooling commute, and only a quarter of the values is left after pooling
        x = functional.relu_(functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)))
        lengths = lengths and lengths.pooled(x.shape[2], padded=True)
        clear = lengths.clear if lengths else _leave
        x = clear(self.layer_3(clear(self.layer_2(x))))
        x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        x = functional.max_pool3d(self._run(x, clear, 5, 6), 3, 2, 1)
        lengths = lengths and lengths.pooled(x.shape[2], padded=True)
        clear = lengths.clear if lengths else _leave
        x = functional.max_pool3d(self._run(clear(x), clear, 8, 9, 10, 11, 12), 2, 2)
        lengths = lengths and lengths.pooled(x.shape[2], padded=False)
        clear = lengths.clear if lengths else _leave
        x = self._run(clear(x), clear, 14, 15)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        pooled = lengths.mean(x, dtype) if lengths else x.mean((2, 3, 4), dtype=dtype)
        return pooled if self.classifier is None else self.classifier(pooled.double())

    def _run(self, x: Tensor, clear: Clear, *layers: int) -> Tensor:
        for layer in layers:
            x = self.blocks[str(layer)](x, clear)
        return x


def _leave(x: Tensor) -> Tensor:
    """All frames belong to clips."""
    return x


@dataclass(frozen=True)
class Lengths:
    """The number of a batch's frames that belong to each clip, at one of the network's temporal resolutions.

    Attributes
    ----------
    own
        Per clip, ascending.
    behind
        (n, 1, T - own[0], 1, 1), true for frames after the end of their clip; frames before ``own[0]`` never are.
    """

    own: tuple[int, ...]
    behind: Tensor

    @classmethod
    def of(cls, own: tuple[int, ...], frames: int, device: torch.device) -> Lengths:
        """Those of clips in a batch of so many frames."""
        number = torch.arange(own[0], frames)
        behind = number >= torch.tensor(own)[:, None]
        return cls(own, behind[:, None, :, None, None].to(device))

    def pooled(self, frames: int, *, padded: bool) -> Lengths:
        """Those behind a layer of stride 2 that leaves so many frames; without padding an odd last one is dropped."""
        own = tuple((n + padded) // 2 for n in self.own)
        return Lengths.of(own, frames, self.behind.device)

    def clear(self, x: Tensor) -> Tensor:
        """Set frames after each clip's end to zero, in place: (n, channel, T, H, W)."""
        if self.behind.shape[2]:
            x[:, :, self.own[0] :].masked_fill_(self.behind, 0)
        return x

    def mean(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The mean over each clip's own frames and over the plane: to (n, channel)."""
        total = self.clear(x).sum((2, 3, 4), dtype=dtype)
        return total / (torch.tensor(self.own, dtype=dtype)[:, None] * x.shape[3] * x.shape[4]).to(x.device)

    def groups(self) -> list[tuple[int, slice]]:
        """Each length that there is, and its rows."""
        rows, start = [], 0
        for length, same in groupby(self.own):
            stop = start + len(list(same))
            rows.append((length, slice(start, stop)))
            start = stop
        return rows


@dataclass(frozen=True)
class Convolution:
    """A convolution with the batch normalisation after it: kernels (out, in, T, H, W) and bias (out), float64."""

    kernels: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class GreyStem:
    """The first convolution for one grey channel.

    Attributes
    ----------
    convolution
        For grey levels less :data:`GREY_ZERO`, one channel. Its bias is right where the kernel lies inside the clip.
    constant
        (out, T, H, W): the kernels that the constant part of the three normalised channels meets. Padding with zeros
        comes after normalisation, so the part of these kernels outside the clip has to be subtracted again.
    """

    convolution: Convolution
    constant: FloatArray


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


# Convolutions of 3 x 3 x 3 by Winograd's minimal filtering, F(4 x 4, 3 x 3) in the plane: a quarter of the products.
#
# Four outputs along a line are sums of six products instead of twelve: of three kernel values and six inputs, both
# taken as polynomials, at six points (Lavin and Gray 2016, arXiv:1509.09308; Toom-Cook). Along slices the sum stays as
# it is. The points 0, +-3/4, +-3/2 and infinity round least of those tried, and their matrices are exact in
# float32. Kernels are brought there once, in float64.
#
# On a CPU, in float32. A few rows of tiles are taken at a time, as many as its cache holds; their products are a
# convolution of 36 groups to oneDNN.

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
