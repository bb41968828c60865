"""Features that tell no case from another: constant among all cases of a modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.counting import count
from prognosis_dask.errors import Code, Problem

if TYPE_CHECKING:
    import xarray as xr

#: Of fewer cases nothing is said: two may be alike by chance.
FEWEST_CASES = 3


def constant_warnings(dataset: xr.Dataset) -> list[Problem]:
    """A warning for each modality in which radiomic or deep features have one value in all cases.

    Parameters
    ----------
    dataset
        A run's features.
    """
    found = []
    for family in ("radiomics", "deep"):
        if family not in dataset:
            continue
        values = np.asarray(dataset[family].values, dtype=float)
        names = dataset[str(dataset[family].dims[1])].values
        for modality in sorted(set(map(str, dataset["modality"].values))):
            rows = values[dataset["modality"].values == modality]
            rows = rows[np.isfinite(rows).any(axis=1)]
            if len(rows) < FEWEST_CASES:
                continue
            held = np.isfinite(rows).all(axis=0)
            alike = [str(names[j]) for j in np.flatnonzero(held) if np.ptp(rows[:, j]) == 0]
            if alike:
                found.append(_warning(family, modality, alike, int(held.sum()), len(rows)))
    return found


def _warning(family: str, modality: str, names: list[str], of: int, cases: int) -> Problem:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    bins = "; of texture, see whether binWidth fits the image's values" if family == "radiomics" else ""
    return Problem(
        Code.FEATURES_CONSTANT,
        f"{len(names)} of {of} {family} features have one value in all {count(cases, f'{modality} case')}: {shown}. "
        f"They tell no case from another{bins}",
        severity="warning",
    )
