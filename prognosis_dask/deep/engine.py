"""What every engine offers: clips in, features out, and where they came from."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prognosis_dask.deep.gluon_import import gluon_version
from prognosis_dask.deep.networks import find_network
from prognosis_dask.deep.weights import resolve_weights
from prognosis_dask.errors import CaseError, Code, JobError, import_extra
from prognosis_dask.job import DeepSection


class Engine(Protocol):
    """A network with its weights, ready to run. A clip's features do not depend on the clips beside it."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name for each of the F features."""
        ...

    @property
    def rows(self) -> int:
        """How many clips go through the network at once; fewer than asked for after a GPU ran out of memory."""
        ...

    def features(self, clips: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run clips of one length: (n, 3, T, 224, 224) float32 to (n, F) float32."""
        ...

    def features_of_frames(self, frames: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Make and run the clips of regions of one number of slices: n times (slice, 128, 128) uint8 to (n, F)."""
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
    section = settle_engine(section)
    network = find_network(section.network)
    library, version = ("torch", torch_version()) if section.engine == "torch" else ("mxnet", gluon_version())
    weights = resolve_weights(section.weights, network, sha256=section.weights_sha256)
    source = {"weights_source_sha256": weights.source_sha256} if weights.source_sha256 else {}
    return EngineDescription(
        feature_names=network.feature_names(section.output),
        provenance={
            "engine": section.engine,
            library: version,
            "network": network.name,
            "output": section.output,
            "weights": weights.spec,
            "weights_sha256": weights.sha256,
            **source,
            "device": section.device,
            "precision": section.precision,
            "rows": str(rows_together(section.device, section.batch_size)),
        },
    )


def settle_engine(section: DeepSection) -> DeepSection:
    """The section with its engine chosen: ``auto`` is torch where it is installed, else gluon.

    To be settled once per run, where the run is started, so that a worker with another installation stops the run and
    does not change engines.

    Raises
    ------
    JobError
        When the precision is one that the engine, or the device, does not have.
    """
    if section.engine == "auto":
        section = replace(section, engine="torch" if importlib.util.find_spec("torch") else "gluon")
    known = _PRECISIONS.get((section.engine, section.device), ("float32",))
    if section.precision not in known:
        raise JobError(
            f"deep.precision is {section.precision!r}, which engine {section.engine!r} does not have on device "
            f"{section.device!r}; expected one of {', '.join(map(repr, known))}"
        )
    return section


_PRECISIONS = {
    ("torch", "cpu"): ("float32", "bfloat16"),
    ("torch", "gpu"): ("float32", "tf32", "bfloat16", "float16"),
}


def torch_version() -> str:
    """The version of torch, without the seconds that importing it takes.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    if not importlib.util.find_spec("torch"):
        import_extra("torch", extra="torch", feature="deep.engine = 'torch'")
    return importlib.metadata.version("torch")


def load_engine(section: DeepSection) -> Engine:
    """Load the engine, network and weights that a job names; takes seconds, so do it once per process.

    Raises
    ------
    JobError, WeightsError, MissingExtraError, ClusterError
        When the job names what does not exist, the weights cannot be had, the engine is not installed, or the job
        asks for a GPU and none is seen.
    """
    section = settle_engine(section)
    network = find_network(section.network)
    weights = resolve_weights(section.weights, network, sha256=section.weights_sha256)
    rows = rows_together(section.device, section.batch_size)
    if section.engine == "torch":
        torch_version()
        from prognosis_dask.deep.torch_engine import TorchEngine

        return TorchEngine(
            network,
            weights,
            output=section.output,
            device=section.device,
            precision=section.precision,
            rows=rows,
        )
    from prognosis_dask.deep.gluon import GluonEngine

    return GluonEngine(network, weights, output=section.output, device=section.device, rows=rows)


def rows_together(device: str, batch_size: int) -> int:
    """How many clips go through the network at once: always as many, filled up with zeros where there are fewer.

    The clips beside one change when a run is resumed, and matrix products round differently for other numbers of rows.
    On a CPU the number is 1, since larger batches are no faster there.
    """
    return batch_size if device == "gpu" else 1


def cases_per_task(section: DeepSection) -> int:
    """How many cases of one clip length make a task.

    Four batches on a GPU, so that the next frames are read while the network runs.
    """
    return section.batch_size * (4 if section.device == "gpu" else 1)


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
