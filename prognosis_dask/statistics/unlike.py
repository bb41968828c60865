"""How one new case is unlike those that a frozen model was fitted on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prognosis_dask.statistics.frozen import Frozen
from prognosis_dask.statistics.table import FeatureTable


def unlike(frozen: Frozen, table: FeatureTable) -> list[str]:
    """Sentences on features in the model that lie beyond those of all training cases, and on those that are missing.

    Parameters
    ----------
    frozen
        The model.
    table
        One row, with every feature that the model asks for.
    """
    position = {name: i for i, name in enumerate(table.features)}
    chosen = frozen.fitted.chosen
    values = table.X[0, [position[name] for name in chosen]]
    least, most = frozen.limits(chosen)
    outside = [name for name, v, a, b in zip(chosen, values, least, most, strict=True) if v < a or v > b]
    missing = [name for name, value in zip(chosen, values, strict=True) if math.isnan(value)]
    warnings = []
    if outside:
        warnings.append(
            f"{len(outside)} of the model's {len(chosen)} features lie outside of what any training case had: "
            f"{_some(outside)}. There the model extrapolates."
        )
    if missing:
        warnings.append(f"Not known of this scan, taken as the training cases' median: {_some(missing)}.")
    return warnings


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
