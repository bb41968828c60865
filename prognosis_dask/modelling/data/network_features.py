"""Deep features of the grade network, learnt anew from each outer fold's training cases.

The network sees what it is to predict, so its features of a case that it was trained on say nothing of how good it is.
So in nested validation each outer fold has a network that has seen its training cases alone, and within those the
features of a case come from a network that was trained on the others (cross-fitting): a model on features that the
network knows by heart would believe nothing else. All these networks start from the same values and so learn units
that mean about the same, and each one's features are in standard deviations of its own training cases: that lets one
model take the features of several networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from prognosis_dask.arrays import Float32Array, IntArray, Map
from prognosis_dask.config.job import GradeSection, digest
from prognosis_dask.errors import CaseError, StatisticsError, WeightsError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.validation.nested import Extend
from prognosis_dask.modelling.validation.splitting import split_patients
from prognosis_dask.networks.grade_network import feature_names
from prognosis_dask.networks.training import Trained, provenance, read_trained, run_network, train, trained_bytes
from prognosis_dask.objects.address import is_address, join, parse_address
from prognosis_dask.objects.bucket import bucket_of
from prognosis_dask.objects.files import read_bytes
from prognosis_dask.publish import replacing
from prognosis_dask.storage.volumes import read_volumes

#: The features' family, and the file of the network that was trained on all cases.
FAMILY = "network"
FILE = "network.safetensors"


@dataclass(frozen=True)
class NetworkFeatures:
    """Adds the features of a network trained on some rows of a table to all of its rows.

    It is small, so that it travels with tasks. What a training gave is kept, and taken from there when the same is
    asked for again: a run that was stopped goes on, one that is repeated trains nothing.

    Attributes
    ----------
    volumes
        Path or address of the store of volumes.
    section
        The job's ``[grade]``.
    source
        The volumes' content: its digest.
    folder
        Where the features of trained networks are kept, and the final network; "" keeps none.
    contents
        By case the digest of its volume: another one was put there late, by the worker of a stopped run.
    """

    volumes: str
    section: GradeSection
    source: str = ""
    folder: str = ""
    contents: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, table: FeatureTable, train_rows: IntArray) -> FeatureTable:
        """The table with 544 more columns of family "network".

        Trained on all rows it is the final network: its file, :data:`FILE` in ``folder``, is written, and its digest
        stands in the table's ``source``.

        Raises
        ------
        StatisticsError
            When the endpoint is not two classes, a class has too few training patients, or a training runs away.
        StoreError, MissingExtraError, ClusterError
            When a case has no volume, or the engine or the GPU is not there.
        """
        origin = self._origin(table, train_rows)
        if not self.folder:
            return _with_columns(table, self._learn(table, train_rows, origin)[1])
        network, features = join(self.folder, FILE), join(self.folder, f"{origin}.npy")
        final = len(train_rows) == len(table.case_ids)
        trained, values = _kept_network(network, origin) if final else None, _kept_features(features)
        if values is None or (final and trained is None):
            trained, values = self._learn(table, train_rows, origin)
            _keep(_array_bytes(values), features)
            if final:
                _keep(trained_bytes(trained), network)
        extended = _with_columns(table, values)
        return self._signed(extended, trained) if trained is not None and final else extended

    def of_folds(self, map: Map = map) -> Extend:
        """To be given to :func:`modelling.validation.nested.validate`; ``map`` spreads the folds' trainings."""
        return lambda table, folds: map(partial(self, table), folds)

    def extend_by(self, table: FeatureTable, trained: Trained) -> FeatureTable:
        """The table, of new cases, with the features of a network that is trained already."""
        return self._signed(_with_columns(table, self._features(trained, table)), trained)

    def _signed(self, table: FeatureTable, trained: Trained) -> FeatureTable:
        return replace(table, source={**table.source, f"{FAMILY}.sha256": trained.sha256})

    def _learn(self, table: FeatureTable, train_rows: IntArray, origin: str) -> tuple[Trained, Float32Array]:
        """The network trained on these rows, and the features of all; no network takes a case twice for them."""
        known = table.rows(train_rows)
        trained, own = self._train(known)
        values = np.empty((len(table.case_ids), own.shape[1]), np.float32)
        values[train_rows] = own if self.section.cross_fit < 2 else self._cross_fitted(known)
        others = np.setdiff1d(np.arange(len(values)), train_rows)
        if len(others):
            values[others] = self._features(trained, table.rows(others))
        return replace(trained, origin=origin), values

    def _cross_fitted(self, known: FeatureTable) -> Float32Array:
        """The features of training cases from networks that have not seen them."""
        number = split_patients(known, self.section.cross_fit, [self.section.seed])
        values = np.empty((len(known.case_ids), len(feature_names())), np.float32)
        for fold in range(self.section.cross_fit):
            others, _ = self._train(known.rows(number != fold))
            values[number == fold] = self._features(others, known.rows(number == fold))
        return values

    def _train(self, known: FeatureTable) -> tuple[Trained, Float32Array]:
        """The network trained on all rows of the table, and their features."""
        volumes = read_volumes(self.volumes, known.case_ids, self.contents)
        return train(volumes, _labels(known), known.patient_ids, self.section)

    def _features(self, trained: Trained, table: FeatureTable) -> Float32Array:
        return run_network(trained, read_volumes(self.volumes, table.case_ids, self.contents), self.section)[0]

    def _origin(self, table: FeatureTable, train_rows: IntArray) -> str:
        """The digest of everything that the features depend on."""
        known = table.rows(train_rows)
        whose = [table.case_ids, known.case_ids, known.patient_ids, known.site]
        return digest(provenance(self.section), self.source, *whose, _labels(known).tolist())


def _labels(table: FeatureTable) -> IntArray:
    if not isinstance(table.endpoint, Classes) or len(table.endpoint.names) != 2:
        raise StatisticsError("the grade network learns two classes: name an endpoint.label that has two values")
    return table.endpoint.label


def _kept_network(path: str, origin: str) -> Trained | None:
    """The network in the file, where it was trained from the same; a damaged one is trained anew."""
    try:
        trained = read_trained(path)
    except WeightsError:
        return None
    return trained if trained.origin == origin else None


def _kept_features(path: str) -> Float32Array | None:
    try:
        return np.load(BytesIO(read_bytes(path)))  # type: ignore[no-any-return]
    except (OSError, CaseError, ValueError, EOFError):
        return None


def _keep(content: bytes, path: str) -> None:
    if is_address(path):
        address = parse_address(path)
        bucket_of(address).put(address.key, content)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(Path(path)) as aside:
        aside.write_bytes(content)


def _array_bytes(values: Float32Array) -> bytes:
    content = BytesIO()
    np.save(content, values, allow_pickle=False)
    return content.getvalue()


def _with_columns(table: FeatureTable, values: Float32Array) -> FeatureTable:
    names = feature_names()
    return replace(
        table,
        X=np.concatenate([table.X, values], axis=1),
        features=(*table.features, *names),
        families=(*table.families, *(FAMILY,) * len(names)),
        units=(*table.units, *("",) * len(names)),
    )
