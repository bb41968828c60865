"""Rows of a table that may be of one patient: copies under other IDs, samples of one patient, cases that disagree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import count
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable

#: Rows that are alike: so many most telling columns are looked at, and chance makes at most so many pairs of rows alike
#: in these; of groups of IDs this share has one follow-up each.
_TELLING, _TWINS_BY_CHANCE, _LEAST_SAME = 6, 0.01, 0.9
#: So rarely chance gives the IDs that are alike the same follow-up.
_BY_CHANCE = 1e-9
#: Of more columns these are looked at, evenly.
_LOOKED_AT = 200


def twin_notes(table: FeatureTable) -> list[str]:
    """Notes on rows that may be of one patient, or are and say different things of its follow-up."""
    endpoint = table.endpoint
    ends = [endpoint.observed_days, endpoint.event] if isinstance(endpoint, Survival) else [endpoint.label]
    outcome = np.column_stack(ends).astype(float)
    return [
        *_same_rows(table.patient_ids, outcome, table.X),
        *(_same_ends(table.patient_ids, outcome) if isinstance(endpoint, Survival) else []),
        *(_different_ends(table.patient_ids, outcome) if isinstance(endpoint, Survival) else []),
    ]


def _groups(keys: Iterable[object], patients: Sequence[str]) -> list[list[int]]:
    """The rows of each key that several patients have."""
    rows: dict[object, list[int]] = defaultdict(list)
    for row, one in enumerate(keys):
        rows[one].append(row)
    return [found for found in rows.values() if len({patients[row] for row in found}) > 1]


def _alike(values: FloatArray) -> float:
    """The chance that two rows have the same value."""
    often = np.unique(values, return_counts=True)[1] / len(values)
    return float((often**2).sum())


def _same_rows(patients: Sequence[str], outcome: FloatArray, X: FloatArray) -> list[str]:
    """A note on patients who agree in all numbers, of which the most telling few do not agree by chance."""
    keys = (
        blake2b((end + 0.0).tobytes() + (row + 0.0).tobytes()).digest() for end, row in zip(outcome, X, strict=True)
    )
    groups = _groups(keys, patients)
    if not groups:
        return []
    some = X[:, :: max(1, X.shape[1] // _LOOKED_AT)]
    telling = sorted(_alike(column) for column in (*outcome.T, *some.T))[:_TELLING]
    if len(X) ** 2 / 2 * np.prod(telling) > _TWINS_BY_CHANCE:
        return []
    first, second = (patients[row] for row in groups[0][:2])
    return [
        f"{count(sum(map(len, groups)) - len(groups), 'row')} repeat another patient's in outcome and all features, "
        f"{second!r} that of {first!r} first: if these are the same patients, keep one row of each; otherwise the same "
        "patient is used for training and testing."
    ]


def _same_ends(patients: Sequence[str], outcome: FloatArray) -> list[str]:
    """A note on IDs that are alike but for their last part, and go with one follow-up: samples of one patient."""
    stems = [re.sub(r"[-_./ ]+[^-_./ ]+$", "", patient) for patient in patients]
    groups = _groups(stems, patients)
    same = [rows for rows in groups if len(np.unique(outcome[rows], axis=0)) == 1]
    if len(same) < _LEAST_SAME * len(groups) or not same or _alike(outcome[:, 0]) ** len(same) > _BY_CHANCE:
        return []
    first, second = (patients[row] for row in same[0][:2])
    return [
        f"{first!r} and {second!r} have the same follow-up, and so have {len(same) - 1} more such groups of IDs: if "
        "the last part of the ID is a sample's or a lesion's, give the table a column of patients; otherwise one "
        "patient is used for training and testing."
    ]


def _different_ends(patients: Sequence[str], outcome: FloatArray) -> list[str]:
    """A note on patients whose cases differ in their follow-up, as lesions may, and survival does not."""
    ends: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    for patient, end in zip(patients, outcome.tolist(), strict=True):
        ends[patient].add(tuple(end))
    differing = [patient for patient, of in ends.items() if len(of) > 1]
    if not differing:
        return []
    return [
        f"The cases of {count(len(differing), 'patient')}, {differing[0]!r} first, differ in time or event: correct "
        "for an outcome of each lesion, wrong for survival."
    ]
