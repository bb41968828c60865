"""Whose case is whose: where patients have several cases, these are no independent observations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prognosis_dask.statistics.endpoint import FloatArray


def several_cases(patient_ids: Sequence[str]) -> bool:
    """Whether a patient has more than one case.

    >>> several_cases(["a", "b", "a"]), several_cases(["a", "b"]), several_cases([])
    (True, False, False)
    """
    return len(set(patient_ids)) < len(patient_ids)


def patient_sums(values: FloatArray, patient_ids: Sequence[str]) -> FloatArray:
    """The cases' rows, added up for each patient.

    >>> patient_sums(np.array([[1.0], [2.0], [3.0]]), ["a", "b", "a"]).tolist()
    [[4.0], [2.0]]
    """
    patients, patient = np.unique(patient_ids, return_inverse=True)
    sums = np.zeros((len(patients), values.shape[1]))
    np.add.at(sums, patient, values)
    return sums
