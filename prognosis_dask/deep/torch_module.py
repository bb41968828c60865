"""Running any torch module on one clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prognosis_dask.deep.clip_engine import Floats, RunClip
from prognosis_dask.deep.torch_settings import repeatable
from prognosis_dask.errors import ClusterError


def torch_runner(module: Any, device: str) -> RunClip:
    """The function from a clip to the module's values, in one thread where it runs on the processor.

    Raises
    ------
    ClusterError
        When ``device`` is ``gpu`` and torch sees none.
    """
    if device == "gpu" and not torch.cuda.is_available():
        raise ClusterError(
            f"deep.device is 'gpu', but torch {torch.__version__} sees no GPU here; or set deep.device = 'cpu'"
        )
    target = torch.device("cuda" if device == "gpu" else "cpu")
    module = module.to(target).eval()

    def run(clip: Floats) -> Floats:
        with repeatable():
            values = module(torch.from_numpy(np.ascontiguousarray(clip)).to(target))
        return np.asarray(values.float().cpu().numpy(), np.float32).reshape(-1)

    return run
