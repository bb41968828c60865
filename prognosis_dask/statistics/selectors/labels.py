"""The classes that selectors of classes see: those of the endpoint, or alive after so many days."""

from __future__ import annotations

from prognosis_dask.statistics.endpoint import Classes, Endpoint, FloatArray, Survival
from prognosis_dask.statistics.selection import survival_label


def labelled(Z: FloatArray, endpoint: Endpoint, label_days: float) -> tuple[FloatArray, Classes]:
    """The cases whose class is known, and their classes; of survival, alive after :func:`settled_days`."""
    if isinstance(endpoint, Classes):
        return Z, endpoint
    alive, known = survival_label(endpoint.time_days, endpoint.event, settled_days(endpoint, label_days))
    return Z[known], Classes(alive[known].astype(int), ("not alive", "alive"))


def settled_days(endpoint: Survival, label_days: float) -> float:
    """The days after which cases are alive or not: ``label_days``, or the median time of these cases' events.

    The latter where all that is known after ``label_days`` is one class: before the first event, or beyond all
    follow-up. Of an even number of events it is the earlier middle one, beyond which there is an event still.

    >>> import numpy as np
    >>> late = Survival(np.array([500.0, 700.0, 900.0, 950.0]), np.array([True, True, True, False]))
    >>> settled_days(late, 365.0), settled_days(late, 600.0)
    (700.0, 600.0)
    """
    alive, known = survival_label(endpoint.time_days, endpoint.event, label_days)
    times = sorted(endpoint.time_days[endpoint.event].tolist())
    if len(set(alive[known].tolist())) == 2 or not times:
        return label_days
    return float(times[(len(times) - 1) // 2])
