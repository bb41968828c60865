"""Deep features of the grade network, learnt anew from each outer fold's training cases.

The network sees what it is to predict, so its features of a case that it was trained on say nothing of how good it is.
So in nested validation each outer fold has a network that has seen its training cases alone, and within those the
features of a case come from a network that was trained on the others (cross-fitting): a model on features that the
network knows by heart would believe nothing else. All these networks start from the same values and so learn units
that mean about the same, and each one's features are in standard deviations of its own training cases: that lets one
model take the features of several networks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from prognosis_dask.deep.grade_file import trained_bytes
from prognosis_dask.deep.grade_network import feature_names
from prognosis_dask.deep.training import Trained, provenance, run_network, train
from prognosis_dask.errors import StatisticsError
from prognosis_dask.job import GradeSection
from prognosis_dask.statistics.endpoint import Classes, FloatArray, IntArray
from prognosis_dask.statistics.splitting import split_patients
from prognosis_dask.statistics.table import FeatureTable
from prognosis_dask.store.publish import staging
from prognosis_dask.store.volumes import read_volumes

#: The features' family, and the file of the network that was trained on all cases.
FAMILY = "network"
FILE = "network.safetensors"


@dataclass(frozen=True)
class NetworkFeatures:
    """Adds the features of a network trained on some rows of a table to all of its rows.

    To be given to :func:`prognosis_dask.statistics.nested.validate` as ``extend``; that function's ``map`` decides
    where the folds' networks are trained. It is small, so that it travels with tasks. What a training gave is kept, and
    taken from there when the same is asked for again: a run that was stopped goes on.

    Attributes
    ----------
    volumes
        Path of the store of volumes.
    section
        The job's ``[grade]``.
    source
        What the volumes depend on: its digest.
    folder
        Where the features of trained networks are kept; "" keeps none.
    """

    volumes: str
    section: GradeSection
    source: str = ""
    folder: str = ""

    def __call__(self, table: FeatureTable, train_rows: IntArray) -> FeatureTable:
        """The table with 544 more columns of family "network".

        Trained on all rows it is the final network: its file, :data:`FILE` in ``folder``, is written, and its digest
        stands in the table's ``source``.

        Raises
        ------
        StatisticsError
            When the endpoint is not two classes, or a class has too few training patients.
        StoreError, MissingExtraError, ClusterError
            When a case has no volume, or the engine or the GPU is not there.
        """
        final = self.folder and len(train_rows) == len(table.case_ids)
        kept = self._file(table, train_rows)
        if kept is not None and kept.is_file() and not final:
            return _with_columns(table, np.load(kept))
        trained = self.train(table, train_rows)
        values = self._values(trained, table)
        values[train_rows] = self._cross_fitted(table.rows(train_rows), values[train_rows])
        if not final:
            if kept is not None:
                _keep(_array_bytes(values), kept)
            return _with_columns(table, values)
        _keep(trained_bytes(trained), Path(self.folder) / FILE)
        return self._signed(_with_columns(table, values), trained)

    def train(self, table: FeatureTable, rows: IntArray) -> Trained:
        """The network trained on these rows of the table."""
        if not isinstance(table.endpoint, Classes) or len(table.endpoint.names) != 2:
            raise StatisticsError("the grade network learns two classes: name an endpoint.label that has two values")
        known = table.rows(np.asarray(rows))
        volumes = read_volumes(Path(self.volumes), known.case_ids)
        return train(volumes, table.endpoint.label[rows], known.patient_ids, self.section)

    def extend_by(self, table: FeatureTable, trained: Trained) -> FeatureTable:
        """The table, of new cases, with the features of a network that is trained already."""
        return self._signed(_with_columns(table, self._values(trained, table)), trained)

    def _signed(self, table: FeatureTable, trained: Trained) -> FeatureTable:
        return replace(table, source={**table.source, f"{FAMILY}.sha256": trained.sha256})

    def _values(self, trained: Trained, table: FeatureTable) -> FloatArray:
        features, _ = run_network(trained, read_volumes(Path(self.volumes), table.case_ids), self.section)
        return features.astype(np.float64)

    def _cross_fitted(self, table: FeatureTable, values: FloatArray) -> FloatArray:
        """The features of training cases from networks that have not seen them; ``values`` where there is one only."""
        if self.section.cross_fit < 2:
            return values
        number = split_patients(table, self.section.cross_fit, [self.section.seed])
        found = np.empty_like(values)
        for fold in range(self.section.cross_fit):
            others = self.train(table, np.flatnonzero(number != fold))
            found[number == fold] = self._values(others, table.rows(number == fold))
        return found

    def _file(self, table: FeatureTable, train_rows: IntArray) -> Path | None:
        """Named after everything that the features depend on."""
        if not self.folder or not isinstance(table.endpoint, Classes):
            return None
        known = table.rows(np.asarray(train_rows))
        parts = [provenance(self.section), self.source, table.case_ids, known.case_ids, known.patient_ids]
        text = json.dumps([*parts, np.asarray(table.endpoint.label)[train_rows].tolist()], sort_keys=True)
        return Path(self.folder) / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"


def _keep(content: bytes, path: Path) -> None:
    with staging(path) as folder:
        aside = folder / path.name
        aside.write_bytes(content)
        aside.replace(path)


def _array_bytes(values: FloatArray) -> bytes:
    content = BytesIO()
    np.save(content, values, allow_pickle=False)
    return content.getvalue()


def _with_columns(table: FeatureTable, values: FloatArray) -> FeatureTable:
    names = feature_names()
    return replace(
        table,
        X=np.concatenate([table.X, values], axis=1),
        features=(*table.features, *names),
        families=(*table.families, *(FAMILY,) * len(names)),
        units=(*table.units, *("",) * len(names)),
    )
