"""What the tests of the grade network share: small volumes with a class in them, and the engines."""

from __future__ import annotations

import numpy as np
import pytest

ENGINES = ("gluon", "torch")


def need(engine: str, request: pytest.FixtureRequest) -> None:
    """Skip the test where the engine is not installed."""
    if engine == "torch":
        pytest.importorskip("torch")
    else:
        request.getfixturevalue("gluon")


def installed() -> str:
    """The engine of this environment."""
    from prognosis_dask.config.job import GradeSection
    from prognosis_dask.networks.training import settle_learner

    return settle_learner(GradeSection())


def made_volumes(count, shape=(8, 16, 16), signal=1.0, seed=0):
    """Noise with a block in its middle, brighter by ``signal`` in the cases of class 1; and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    volumes = rng.normal(0, 1, (count, *shape)).astype(np.float32)
    a, b, c = (size // 4 for size in shape)
    volumes[:, a:-a, b:-b, c:-c] += np.float32(signal) * labels[:, None, None, None].astype(np.float32)
    return volumes, labels
