"""Set torch's process-wide settings, on which a feature's bits depend, while a network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.errors import ClusterError
from prognosis_dask.networks.clips import FRAME_SIZE, ClipRule, places


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
