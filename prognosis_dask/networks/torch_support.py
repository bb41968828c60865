"""Set torch's process-wide settings, on which a feature's bits depend, while a network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from prognosis_dask.arrays import Float32Array
from prognosis_dask.errors import ClusterError
from prognosis_dask.networks.clip_engine import RunClip


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


def torch_runner(module: Any, device: str, key: str) -> RunClip:
    """The function from a clip to the module's values, in one thread on a CPU; ``key`` is the section that asks.

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
    module = module.to(target).eval()

    def run(clip: Float32Array) -> Float32Array:
        with repeatable():
            values = module(torch.from_numpy(np.ascontiguousarray(clip)).to(target))
        if not isinstance(values, torch.Tensor):
            raise TypeError(f"it gives a {type(values).__name__}, expected one tensor")
        return np.asarray(values.float().cpu().numpy(), np.float32).reshape(-1)

    return run
