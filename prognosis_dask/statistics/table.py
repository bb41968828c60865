"""The table that every statistic takes: features of cases with their endpoint."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from prognosis_dask.errors import Code, StatisticsError

if TYPE_CHECKING:
    import xarray as xr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FeatureTable:
    """Features and endpoint, one row per case; every value is finite and every time is positive.

    Attributes
    ----------
    X
        Features, shape (cases, features).
    features
        Their names.
    case_ids, patient_ids
        Whose row it is; a patient may have several.
    time_days, event
        Follow-up, and True where it ended with the event, False where it was censored.
    """

    X: FloatArray
    features: tuple[str, ...]
    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    time_days: FloatArray
    event: BoolArray

    def rows(self, chosen: IntArray | BoolArray) -> FeatureTable:
        """The table of the chosen rows, given by position or by mask."""
        at = np.arange(len(self.case_ids))[chosen]
        return FeatureTable(
            self.X[at],
            self.features,
            tuple(self.case_ids[i] for i in at),
            tuple(self.patient_ids[i] for i in at),
            self.time_days[at],
            self.event[at],
        )


def table_from_dataset(
    dataset: xr.Dataset, features: Literal["deep", "radiomics", "both"]
) -> tuple[FeatureTable, dict[str, int]]:
    """Take the modelling table out of the feature dataset.

    Parameters
    ----------
    dataset
        Variables ``deep`` and ``radiomics`` over ``case`` and a dimension whose coordinate names the features,
        ``time_days(case)``, ``event(case)``, and the coordinate ``patient_id(case)``.
    features
        Which features become columns; ``both`` puts radiomics first.

    Returns
    -------
    table
        The complete rows. A feature that no case has (a class of features that was switched off) is no column.
    left_out
        How many cases are not in the table, by reason; a case counts once, under the first reason that holds.

    Raises
    ------
    StatisticsError
        When the dataset lacks the features.
    """
    kinds = ("radiomics", "deep") if features == "both" else (features,)
    missing = [kind for kind in kinds if kind not in dataset]
    if missing:
        raise StatisticsError(
            f"model.features is {features!r}, but the dataset has no {' and no '.join(missing)} features: "
            "choose others, or switch their stage on"
        )
    X = np.concatenate([np.asarray(dataset[kind].values, dtype=float) for kind in kinds], axis=1)
    names = [str(name) for kind in kinds for name in dataset[dataset[kind].dims[1]].values]
    time = np.asarray(dataset["time_days"].values, dtype=float)
    event = np.asarray(dataset["event"].values, dtype=float)

    held = np.isfinite(X).any(axis=0)
    X, names = X[:, held], [name for name, keep in zip(names, held, strict=True) if keep]
    reasons = {
        Code.NO_ENDPOINT.value: ~np.isfinite(time) | ~np.isin(event, (0, 1)),
        "time-not-positive": time <= 0,
        Code.FEATURES_NOT_FINITE.value: ~np.isfinite(X).all(axis=1) | (X.shape[1] == 0),
    }
    first = np.select(list(reasons.values()), list(reasons), default="")
    keep = np.flatnonzero(first == "")
    table = FeatureTable(
        X[keep],
        tuple(names),
        tuple(str(name) for name in dataset["case"].values[keep]),
        tuple(str(name) for name in dataset["patient_id"].values[keep]),
        time[keep],
        event[keep] == 1,
    )
    return table, dict(Counter(str(reason) for reason in first if reason))


def varying(X: FloatArray) -> IntArray:
    """Positions of the columns that are not constant, up to rounding of their own magnitude.

    >>> varying(np.array([[1.0, 0.1 + 0.2, 5.0], [2.0, 0.3, 5.0]])).tolist()
    [0]
    """
    if len(X) == 0:
        return np.arange(0)
    return np.flatnonzero(np.ptp(X, axis=0) > 1e-12 * np.abs(X).max(axis=0))
