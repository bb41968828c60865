"""What every engine offers: clips in, features out, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prognosis_dask.deep.gluon_import import gluon_version
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


@dataclass(frozen=True)
class EngineDescription:
    """What is known of an engine before it is loaded.

    ``provenance`` holds everything that the features depend on: engine and its version, network, output, weights and
    their sha256, device, precision, and the rows that go through the network together.
    """

    feature_names: tuple[str, ...]
    provenance: dict[str, str]


def describe_engine(section: DeepSection) -> EngineDescription:
    """What :func:`load_engine` would load, in a fraction of the time; raises what can be known without loading.

    Raises
    ------
    JobError, WeightsError, MissingExtraError
        As :func:`load_engine`.
    """
    network = find_network(section.network)
    weights = resolve_weights(section.weights, network)
    return EngineDescription(
        feature_names=network.feature_names(section.output),
        provenance={
            "engine": section.engine,
            "mxnet": gluon_version(),
            "network": network.name,
            "output": section.output,
            "weights": weights.spec,
            "weights_sha256": weights.sha256,
            "device": section.device,
            "precision": "float32",
            "rows": str(rows_together(section.device, section.batch_size)),
        },
    )


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

    rows = rows_together(section.device, section.batch_size)
    return GluonEngine(network, weights, output=section.output, device=section.device, rows=rows)


def rows_together(device: str, batch_size: int) -> int:
    """How many clips go through the network at once: always as many, filled up with zeros where there are fewer.

    The clips beside one change when a run is resumed, and matrix products round differently for other numbers of rows.
    On a CPU the number is 1, since larger batches are no faster there.
    """
    return batch_size if device == "gpu" else 1


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
