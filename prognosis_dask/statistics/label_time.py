"""What is said where the label of a selection is not the one that was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from prognosis_dask.counting import count
from prognosis_dask.statistics.endpoint import Survival
from prognosis_dask.statistics.procedure import Procedure
from prognosis_dask.statistics.selectors import NEED_LABEL
from prognosis_dask.statistics.selectors.labels import settled_days
from prognosis_dask.statistics.spec import ValidationRule
from prognosis_dask.statistics.splitting import split_patients
from prognosis_dask.statistics.table import FeatureTable


def label_notes(table: FeatureTable, procedures: Mapping[str, Procedure], rule: ValidationRule) -> list[str]:
    """A sentence for each ``label_days`` that leaves one class only, among all cases or in a training fold.

    There the selection takes the median time of the events among its own training cases
    (:func:`prognosis_dask.statistics.selectors.labels.settled_days`).
    """
    if not isinstance(table.endpoint, Survival):
        return []
    notes = []
    for days in dict.fromkeys(p.label_days for p in procedures.values() if p.selector in NEED_LABEL):
        whole = settled_days(table.endpoint, days)
        training = list(_training(table, procedures, rule))
        other = sum(settled_days(fold.survival, days) != days for fold in training)
        if whole == days and not other:
            continue
        patients = np.array(table.patient_ids)
        dead = len(set(patients[table.event & (table.time_days <= days)]))
        folds = f"in {other} of {count(len(training), 'training set')} of the validation"
        where = f"of all cases, {whole:g} days, and {folds}" if whole != days else folds
        notes.append(
            f"{dead} of {count(len(set(patients)), 'patient')} had the event within {days:g} days (label_days), which "
            f"leaves the selection one class only: instead it took the median time of the events, {where}."
        )
    return notes


def _training(table: FeatureTable, procedures: Mapping[str, Procedure], rule: ValidationRule) -> Iterator[FeatureTable]:
    """The cases that the selection of each fold learns from, the inner folds of its tuning among them."""
    inner = {p.inner_folds for p in procedures.values() if p.selector in NEED_LABEL}
    for repeat in range(rule.repeats):
        number = split_patients(table, rule.folds, [rule.seed, repeat])
        for fold in range(rule.folds):
            train = table.rows(np.flatnonzero(number != fold))
            yield train
            for folds in inner:
                within = split_patients(train, folds, [rule.seed, repeat, fold])
                yield from (train.rows(np.flatnonzero(within != part)) for part in range(folds))
