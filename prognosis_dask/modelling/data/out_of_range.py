"""Whether the features of one new case lie within the range of the training cases."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prognosis_dask.errors import count
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.saved import Frozen

#: A model whose training cases' scores (log odds, or log hazards) span less has learnt nothing useful.
_LEAST_SPAN = 0.01


def tells_apart(frozen: Frozen) -> bool:
    """Whether the training cases have different scores; with few cases, tuning may shrink a model to one for all."""
    scores = frozen.risk_quantiles
    return not len(scores) or bool(scores[-1] - scores[0] >= _LEAST_SPAN)


def out_of_range(frozen: Frozen, table: FeatureTable) -> list[str]:
    """Warnings of features in the model that lie outside the range of all training cases, and of missing ones.

    The first warning, where it applies, is that the model gives every case the same score.

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
    if not tells_apart(frozen):
        warnings.append("The model gives all its training cases the same score: it says nothing of this one either.")
    if outside:
        warnings.append(
            f"Outside of what any training case had: {len(outside)} of the model's {count(len(chosen), 'feature')}, "
            f"{_some(outside)}. There the model extrapolates."
        )
    if frozen.fitted.bounded(table).any():
        warnings.append(
            f"Some lie so far out that the model takes them as {frozen.fitted.procedure.bound_margin:g} SD "
            "beyond the training cases: it cannot know what lies there."
        )
    if missing:
        warnings.append(f"Not known of this scan, taken as the training cases' median: {_some(missing)}.")
    return warnings


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
