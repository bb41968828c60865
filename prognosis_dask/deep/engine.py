"""What every engine offers: clips in, features out, and where they came from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from prognosis_dask.deep.networks import find_network
from prognosis_dask.deep.weights import resolve_weights
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.job import DeepSection


class Engine(Protocol):
    """A network with its weights, ready to run. A clip's features do not depend on the clips beside it."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name for each of the F features."""
        ...

    def features(self, clips: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run clips of one length: (n, 3, T, 224, 224) float32 to (n, F) float32."""
        ...

    def describe(self) -> dict[str, str]:
        """The provenance of the features: engine, network, output, weights, their sha256, device, precision."""
        ...


def load_engine(section: DeepSection) -> Engine:
    """Load the engine, network and weights that a job names; takes seconds, so do it once per process.

    Raises
    ------
    JobError, WeightsError, MissingExtraError, ClusterError
        When the job names what does not exist, the weights cannot be had, the engine is not installed, or the job
        asks for a GPU and none is seen.
    """
    network = find_network(section.network)
    weights = resolve_weights(section.weights, network)
    from prognosis_dask.deep.gluon import GluonEngine

    return GluonEngine(network, weights, output=section.output, device=section.device, batch_size=section.batch_size)


def check_features(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """One case's features (F), as they are.

    Raises
    ------
    CaseError
        ``FEATURES_NOT_FINITE`` when some are NaN or infinite.
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise CaseError(
            Code.FEATURES_NOT_FINITE,
            f"{bad.size} of {values.size} deep features are not finite (number {bad[0]} is {values[bad[0]]}); "
            "expected finite numbers: look at this case's frames",
        )
    return values
