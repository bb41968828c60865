"""The classes that selectors of classes see: those of the endpoint, or alive after so many days."""

from __future__ import annotations

from prognosis_dask.statistics.endpoint import Classes, Endpoint, FloatArray
from prognosis_dask.statistics.selection import survival_label


def labelled(Z: FloatArray, endpoint: Endpoint, label_days: float) -> tuple[FloatArray, Classes]:
    """The cases whose class is known, and their classes."""
    if isinstance(endpoint, Classes):
        return Z, endpoint
    alive, known = survival_label(endpoint.time_days, endpoint.event, label_days)
    return Z[known], Classes(alive[known].astype(int), ("not alive", "alive"))
