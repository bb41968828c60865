"""All that torch computes: the same networks and weights as Gluon's, and the grade network with its training."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import CaseError, ClusterError, Code
from prognosis_dask.networks.catalogue import Network
from prognosis_dask.networks.clips import (
    CLIP_SIZE,
    FRAME_SIZE,
    RESIZED,
    ClipRule,
    check_frames,
    clip_length,
    enlarge,
    filled_length,
    places,
)
from prognosis_dask.networks.grade_network import EPSILON, GradeNetwork, Hidden, Values
from prognosis_dask.networks.torch_network import GREY_ZERO, InceptionV1
from prognosis_dask.networks.weights import Weights


@contextmanager
def repeatable(*, threads: int = 1, tf32: bool = False, gradients: bool = False) -> Iterator[None]:
    """Reproducible inference whatever the process has set; its settings are restored.

    Sums are split, and so rounded, by the number of ``threads``. ``tf32`` lets a GPU round the factors of float32
    convolutions and matrix products to 10 bits of mantissa; torch's default does so for convolutions. ``gradients`` are
    needed for training.
    """
    precision = "tf32" if tf32 else "ieee"
    cudnn = torch.backends.cudnn
    wanted = [
        # benchmarking at run time could choose another algorithm, with other last bits, in the next run
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
        (cudnn.conv, "fp32_precision", precision),
        (torch.backends.cuda.matmul, "fp32_precision", precision),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in wanted]
    before_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for module, name, value in wanted:
            setattr(module, name, value)
        with torch.inference_mode(not gradients):
            yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        torch.set_num_threads(before_threads)


def resize_on_device(frames: Tensor, resized: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """:func:`prognosis_dask.networks.clips.resize` where the frames lie: (..., 128, 128) uint8 to whole grey levels.

    In whole numbers throughout, so that no device and no precision changes a pixel.
    """
    scale = (resized[0] - 1) * (resized[1] - 1)
    values = frames.to(torch.int32 if 4 * 255 * scale < 2**31 else torch.int64)
    for axis, lengths in zip((-2, -1), zip(resized, size, strict=True), strict=True):
        left, part = (torch.from_numpy(one).to(frames.device, values.dtype) for one in places(*lengths))
        part = part[:, None] if axis == -2 else part
        right = (left + 1).clamp(max=FRAME_SIZE - 1)
        values = values.index_select(axis, left) * (lengths[0] - 1 - part) + values.index_select(axis, right) * part
    return torch.div(2 * values + scale, 2 * scale, rounding_mode="floor")


@dataclass(frozen=True)
class TorchRunner:
    """A torch module ready to run, in one thread on a CPU: see :class:`prognosis_dask.networks.clip_engine.RunClip`."""

    module: Any
    device: torch.device

    def __call__(self, clip: Float32Array) -> Float32Array:
        """The values of a clip or cube."""
        with repeatable():
            return self._values(torch.from_numpy(np.ascontiguousarray(clip)).to(self.device))

    def of_frames(self, frames: ByteArray, rule: ClipRule) -> Float32Array:
        """The values of a region's clip, which is made on the device: only grey levels, one byte each, go there."""
        with repeatable():
            grey = resize_on_device(torch.from_numpy(frames).to(self.device), rule.resized, rule.size)
            shown = grey[torch.from_numpy(rule.order(len(frames))).to(self.device)].long()
            return self._values(torch.from_numpy(rule.levels()).to(self.device)[:, shown][None])

    def _values(self, clip: Tensor) -> Float32Array:
        values = self.module(clip)
        if not isinstance(values, Tensor):
            raise TypeError(f"it gives a {type(values).__name__}, expected one tensor")
        return np.asarray(values.float().cpu().numpy(), np.float32).reshape(-1)


def torch_runner(module: Any, device: str, key: str) -> TorchRunner:
    """The function from a clip to the module's values; ``key`` is the section that asks.

    Raises
    ------
    ClusterError
        When ``device`` is ``gpu`` and torch sees none.
    """
    if device == "gpu" and not torch.cuda.is_available():
        raise ClusterError(
            f"{key}.device is 'gpu', but torch {torch.__version__} sees no GPU here; or set {key}.device = 'cpu'"
        )
    target = torch.device("cuda" if device == "gpu" else "cpu")
    return TorchRunner(module.to(target).eval(), target)


#: What a job calls a precision, and the type that the network computes with. ``tf32`` is float32 whose factors a GPU
#: rounds to 10 bits of mantissa on their way into a convolution. Features are float32 always.
PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

#: How a network and its clips may lie in memory.
FORMATS = {"channels_last": torch.channels_last_3d, "contiguous": torch.contiguous_format}


class TorchEngine:
    """A network in torch. See :class:`prognosis_dask.networks.engine.Engine`.

    The network always runs on ``rows`` clips at once, in ``threads`` threads where it runs on a CPU: for other numbers
    of either, sums are split and rounded differently. Where it runs on several, they are filled up behind to one of a
    few lengths, which is the clip's own choice and not its neighbours'. A GPU that has not the memory for ``rows``
    clips goes on with half of them.

    Raises
    ------
    ClusterError
        When ``device`` is ``gpu`` and torch sees none, the processor has no bfloat16, or the device computes something
        else in this precision.
    """

    def __init__(
        self,
        network: Network,
        weights: Weights,
        *,
        output: str,
        device: str,
        precision: str,
        rows: int,
        threads: int = 1,
        memory_format: str = "channels_last",
        key: str = "deep",
    ) -> None:
        self.feature_names = network.feature_names(output)
        self.rows = rows
        self._min_length = network.min_length
        self.device = device
        self._key = key
        self._device = _device(device, precision, key)
        self._dtype = PRECISIONS[precision]
        self._tf32 = precision == "tf32"
        self._threads = threads
        self._fills = rows > 1
        self._lock = threading.Lock()
        self._layout = FORMATS[memory_format]
        self._network = InceptionV1(weights.values, output).prepare(self._device, self._dtype, self._layout)
        if self._device.type == "cuda" or precision != "float32":
            expect_precision(self, weights, output, precision, key)

    def features(self, clips: Float32Array) -> Float32Array:
        """Run clips of one length: (n, 3, T, 224, 224) float32 to (n, F) float32. A clip with NaN has NaN features."""
        fits = clips.ndim == 5 and clips.shape[1::2] == (3, CLIP_SIZE) and clips.shape[4] == CLIP_SIZE
        if not fits or clips.shape[2] < self._min_length or clips.dtype != np.float32:
            raise ValueError(
                f"clips are {clips.dtype} of shape {clips.shape}; expected float32 of shape "
                f"(n, 3, {self._min_length} or more, {CLIP_SIZE}, {CLIP_SIZE})"
            )
        values = self._run(clips, lambda batch: batch, None)
        # a processor's maximum of NaN and zero may be zero, and ReLU would hide it
        values[~np.isfinite(clips).all(axis=(1, 2, 3, 4))] = np.nan
        return values

    def features_of_frames(self, frames: Sequence[ByteArray]) -> Float32Array:
        """Run regions: n times (slice, 128, 128) uint8 to (n, F) float32.

        The same as :meth:`features` of their clips, but for rounding: the clips are made on the device, and grey.

        Raises
        ------
        CaseError
            ``CLIP_INVALID`` when frames are not such, or make a clip that is too short for the network.
        """
        held = [self._held(region) for region in frames]
        batches = defaultdict(list)
        for row in sorted(range(len(held)), key=lambda row: len(held[row])):
            length = len(held[row])
            batches[filled_length(length) if self._fills else length].append(row)
        values = np.empty((len(held), len(self.feature_names)), np.float32)
        for length, rows in batches.items():
            filled = np.full((len(rows), length, FRAME_SIZE, FRAME_SIZE), GREY_ZERO, np.uint8)
            for place, row in zip(filled, rows, strict=True):
                place[: len(held[row])] = held[row]
            own = [len(held[row]) for row in rows]
            values[rows] = self._run(filled, self._grey, own if self._fills else None)
        return values

    def _grey(self, frames: Tensor) -> Tensor:
        if self._device.type == "cpu":  # the same pixels, by a matrix product
            return torch.from_numpy(enlarge(frames.numpy()))[:, None].float() - GREY_ZERO
        return grey_clips(frames) - GREY_ZERO

    def _held(self, region: ByteArray) -> ByteArray:
        """A clip's frames, each as often as it is shown."""
        check_frames(region)
        length = clip_length(len(region))
        if length < self._min_length:
            raise CaseError(
                Code.CLIP_INVALID, f"the clip has {length} frames; expected {self._min_length} or more for this network"
            )
        return np.repeat(region, length // len(region), axis=0)

    def _run(
        self,
        inputs: ByteArray | Float32Array,
        to_clips: Callable[[Tensor], Tensor],
        own: Sequence[int] | None,
    ) -> Float32Array:
        values = np.empty((len(inputs), len(self.feature_names)), np.float32)
        start = 0
        with self._lock, repeatable(threads=self._threads, tf32=self._tf32):
            while start < len(inputs):
                part = inputs[start : start + self.rows]
                try:
                    lengths = own and own[start : start + self.rows]
                    values[start : start + len(part)] = self._compute(part, to_clips, lengths)[: len(part)]
                except torch.OutOfMemoryError as error:
                    self._halve(part, error)
                    continue
                start += len(part)
        return values

    def _compute(
        self,
        part: ByteArray | Float32Array,
        to_clips: Callable[[Tensor], Tensor],
        own: Sequence[int] | None,
    ) -> Float32Array:
        missing = self.rows - len(part)
        if missing:
            part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        batch = torch.from_numpy(np.ascontiguousarray(part))
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        clips = to_clips(batch).to(dtype=self._dtype, memory_format=self._layout)
        lengths = (*own, *[part.shape[1]] * missing) if own else None
        return self._network(clips, lengths).float().cpu().numpy()  # type: ignore[no-any-return]

    def _halve(self, part: ByteArray | Float32Array, error: torch.OutOfMemoryError) -> None:
        if self.rows == 1:
            raise CaseError(
                Code.GPU_MEMORY,
                f"the GPU has not the memory for one clip of {part.shape[-3]} frames ({str(error).splitlines()[0]}); "
                f"use a GPU with more, a lower {self._key}.precision, or {self._key}.device = 'cpu'",
            ) from error
        self.rows //= 2
        logging.getLogger(__name__).warning("GPU out of memory: %d clips at once from here on", self.rows)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def load_torch(section: DeepSection, network: Network, weights: Weights, rows: int, memory_format: str) -> TorchEngine:
    """The engine as a job's section wants it, with one of :data:`FORMATS`."""
    return TorchEngine(
        network,
        weights,
        output=section.output,
        device=section.device,
        precision=section.precision,
        rows=rows,
        memory_format=memory_format,
        key=section.key,
    )


#: Frames of the clip that a precision or a memory format is tried on.
_TRIED = 24
#: Seconds for which a memory format is tried.
_TRYING = 2.0


def clips_per_second(network: Network, weights: Weights, section: DeepSection, rows: int) -> dict[str, float]:
    """How fast this machine's device is with each memory format, from frames in memory to features."""
    frames = [np.full((_TRIED, FRAME_SIZE, FRAME_SIZE), 90 + row % 60, np.uint8) for row in range(rows)]
    found = {}
    for name in FORMATS:
        engine = load_torch(section, network, weights, rows, name)
        engine.features_of_frames(frames)
        begun, clips = time.perf_counter(), 0
        while not clips or time.perf_counter() - begun < _TRYING:
            engine.features_of_frames(frames)
            clips += rows
        found[name] = clips / (time.perf_counter() - begun)
        del engine
        if section.device == "gpu":
            torch.cuda.empty_cache()
    return found


#: How far a feature may lie from float32's, as a share of the largest: ten times what each precision costs.
LIMITS = {"float32": 1e-4, "tf32": 2e-2, "bfloat16": 5e-2, "float16": 2e-2}


def expect_precision(engine: TorchEngine, weights: Weights, output: str, precision: str, key: str = "deep") -> None:
    """Run one clip on the device and, in float32, on the processor: convolutions of some drivers are plainly wrong.

    Raises
    ------
    ClusterError
        When a feature differs by more than :data:`LIMITS`.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-64:64, -64:64]
    ball = 120 * (rows**2 + columns**2 < 30**2)
    frames = (40 + rng.normal(0, 8, (_TRIED, FRAME_SIZE, FRAME_SIZE)) + ball).clip(0, 255).astype(np.uint8)
    exact = InceptionV1(weights.values, output).prepare(torch.device("cpu"), torch.float32)
    with repeatable():
        expected = exact((grey_clips(torch.from_numpy(frames)[None]) - GREY_ZERO).float()).float().numpy()
    error = float(np.abs(engine.features_of_frames([frames]) - expected).max() / np.abs(expected).max())
    if not error <= LIMITS[precision]:
        raise ClusterError(
            f"{key}.precision {precision!r} on {key}.device {engine.device!r} gives a test clip features that differ "
            f"from float32's by {error:.2g} of the largest, expected at most {LIMITS[precision]:g} (torch "
            f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}): use another {key}.precision or driver"
        )


def _device(device: str, precision: str, key: str) -> torch.device:
    if device == "gpu":
        if not torch.cuda.is_available():
            raise ClusterError(
                f"{key}.device is 'gpu', but torch {torch.__version__} sees no GPU here. It needs an NVIDIA card with "
                f"its driver, and a CUDA build of torch; or set {key}.device = 'cpu'"
            )
        return torch.device("cuda")
    if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise ClusterError(f"{key}.precision is 'bfloat16', which this processor does not compute; use 'float32'")
    return torch.device("cpu")


def grey_clips(frames: Tensor) -> Tensor:
    """Enlarge and cut a clip's frames: (n, T, 128, 128) uint8 to (n, 1, T, 224, 224), grey levels 0 to 255."""
    return resize_on_device(frames, (RESIZED, RESIZED), (CLIP_SIZE, CLIP_SIZE))[:, None]


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
