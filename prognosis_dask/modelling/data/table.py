"""The table that every statistic takes: features of cases with their endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival
from prognosis_dask.modelling.data.families import kind_of


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features and endpoint, one row per case.

    Attributes
    ----------
    X
        Features, shape (cases, features); NaN where a value is missing.
    features
        Their names, each once.
    families
        What each is: "deep", "radiomics", "clinical", "volume", "stage", "size", ...
    units
        Of each; "" where it has none.
    case_ids, patient_ids
        Whose row it is; a patient may have several.
    endpoint
        What is to be predicted.
    site
        Scanner or site of each row; () where unknown.
    source
        What the features came from (digests of parameters, network, weights): what other tables must agree with.

    Raises
    ------
    StatisticsError
        When the parts do not fit together, or a feature's name or a case's appears twice.
    """

    X: FloatArray
    features: tuple[str, ...]
    families: tuple[str, ...]
    units: tuple[str, ...]
    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    endpoint: Endpoint
    site: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows, columns = self.X.shape
        for what, length, expected in (
            ("features", len(self.features), columns),
            ("families", len(self.families), columns),
            ("units", len(self.units), columns),
            ("case_ids", len(self.case_ids), rows),
            ("patient_ids", len(self.patient_ids), rows),
            ("endpoint", len(self.endpoint), rows),
            ("site", len(self.site), rows if self.site else 0),
        ):
            if length != expected:
                raise StatisticsError(f"a table of {rows} cases and {columns} features has {length} {what}")
        for what, names in (("features", self.features), ("cases", self.case_ids)):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise StatisticsError(f"{what} appear more than once: {', '.join(twice[:5])}; rename or drop them")

    @property
    def time_days(self) -> FloatArray:
        """Follow-up, shape (cases,)."""
        return self.survival.time_days

    @property
    def event(self) -> BoolArray:
        """True where follow-up ended with the event, shape (cases,)."""
        return self.survival.event

    @property
    def survival(self) -> Survival:
        """The endpoint where it is survival.

        Raises
        ------
        StatisticsError
            When it is a class.
        """
        if not isinstance(self.endpoint, Survival):
            raise StatisticsError(f"this needs times and events, and the endpoint is a class ({self.endpoint.names})")
        return self.endpoint

    def rows(self, chosen: IntArray | BoolArray) -> FeatureTable:
        """The table of the chosen rows, given by position or by mask."""
        at = np.arange(len(self.case_ids))[chosen]
        return replace(
            self,
            X=self.X[at],
            case_ids=tuple(self.case_ids[i] for i in at),
            patient_ids=tuple(self.patient_ids[i] for i in at),
            endpoint=self.endpoint.rows(at),
            site=tuple(self.site[i] for i in at) if self.site else (),
        )

    def columns(self, chosen: IntArray | tuple[str, ...]) -> FeatureTable:
        """The table of the chosen columns, given by position or by family (in the table's order).

        A kind, such as "radiomics", stands for its families of every modality.

        Raises
        ------
        StatisticsError
            When a family has no column.
        """
        if isinstance(chosen, tuple):
            absent = sorted(set(chosen) - {*self.families, *map(kind_of, self.families)})
            if absent:
                known = ", ".join(dict.fromkeys(self.families))
                raise StatisticsError(f"no feature is of family {', '.join(absent)}; the table has: {known}")
            chosen = np.flatnonzero(of_families(self.families, chosen))
        return replace(
            self,
            X=self.X[:, chosen],
            features=tuple(self.features[i] for i in chosen),
            families=tuple(self.families[i] for i in chosen),
            units=tuple(self.units[i] for i in chosen),
        )


def of_families(families: Sequence[str], names: Container[str]) -> BoolArray:
    """Which columns are of families, or of kinds of families, that are named.

    >>> of_families(["radiomics CT", "radiomics PT", "volume"], ("radiomics",)).tolist()
    [True, True, False]
    """
    chosen = {family: family in names or kind_of(family) in names for family in set(families)}
    return np.array([chosen[family] for family in families], dtype=bool)


def varying(X: FloatArray) -> IntArray:
    """Positions of the columns that are not constant, up to rounding of their own magnitude.

    >>> varying(np.array([[1.0, 0.1 + 0.2, 5.0], [2.0, 0.3, 5.0]])).tolist()
    [0]
    """
    if len(X) == 0:
        return np.arange(0)
    return np.flatnonzero(np.ptp(X, axis=0) > 1e-12 * np.abs(X).max(axis=0))
