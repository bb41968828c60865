"""Table 1: what the cases are like, by outcome, with standardised differences and missing values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.families import is_of_images
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.table_spec import Row


def table1_rows(table: FeatureTable, encodings: Sequence[Encoding]) -> list[Row]:
    """The rows of Table 1.

    Numbers as median (quartiles), those of two values as the greater one's count (share), levels as count (share of the
    known). ``smd`` is the standardised difference between the outcome's groups, of means over the pooled standard
    deviation (Austin, Stat Med 28, 2009), for levels by Yang and Dalton (SAS Global Forum 2012, 335); of more than two
    groups the greatest between any two. ``missing`` counts the cases without the value.

    Parameters
    ----------
    table
        The cases in the analysis.
    encodings
        How their features were made; see :class:`prognosis_dask.modelling.data.columns.Encoding`.

    Returns
    -------
    list of dict
        The rows of ``table1``.
    """
    groups = _groups(table)
    rows = _counts(table, groups)
    position = {name: i for i, name in enumerate(table.features)}
    for encoding in encodings:
        if is_of_images(encoding.family) or encoding.features[0] not in position:
            continue
        values = table.X[:, [position[name] for name in encoding.features]]
        rows += _levels(encoding, values, groups) if encoding.levels else [_number(encoding, values[:, 0], groups)]
    # families of hundreds of columns: one row each, not one per feature
    for family in [name for name in dict.fromkeys(table.families) if is_of_images(name)]:
        columns = [i for i, name in enumerate(table.families) if name == family]
        missing = int(np.isnan(table.X[:, columns]).any(axis=1).sum())
        rows.append(_row(family, f"{len(columns)} features", "", dict.fromkeys(groups, ""), missing))
    return rows


def _counts(table: FeatureTable, groups: dict[str, BoolArray]) -> list[Row]:
    """Patients and cases; a patient with cases of two classes counts in both."""
    patients = np.array(table.patient_ids)
    by_group = {name: len(set(patients[chosen])) for name, chosen in groups.items()}
    return [
        _row("patients", "", len(set(patients)), by_group),
        _row("cases", "", len(patients), {name: int(chosen.sum()) for name, chosen in groups.items()}),
    ]


def standardised_difference(first: FloatArray, second: FloatArray) -> float:
    """Between two groups of values, or of levels as indicator columns: always positive; NaN where a group is too small.

    Parameters
    ----------
    first, second
        Shape (cases,) for numbers, (cases, levels - 1) for indicators; NaN where missing.

    >>> round(standardised_difference(np.array([1.0, 2, 3]), np.array([2.0, 3, 4])), 6)
    1.0
    """
    parts = [part[np.isfinite(part).all(axis=1)] for part in (_columns(first), _columns(second))]
    if min(len(part) for part in parts) < 2:
        return float("nan")
    gap = parts[0].mean(axis=0) - parts[1].mean(axis=0)
    # of indicators p (1 - p) is their variance, p_i p_j their covariance: both are sample moments with n below the line
    ddof = 1 if first.ndim == 1 else 0
    first_cov, second_cov = (np.cov(part, rowvar=False, ddof=ddof).reshape(len(gap), len(gap)) for part in parts)
    pooled = (first_cov + second_cov) / 2
    if not gap.any():
        return 0.0
    if not pooled.any():
        return float("inf")
    return float(np.sqrt(max(0.0, gap @ np.linalg.pinv(pooled) @ gap)))


def _columns(values: FloatArray) -> FloatArray:
    return values[:, None] if values.ndim == 1 else values


def _groups(table: FeatureTable) -> dict[str, BoolArray]:
    if isinstance(table.endpoint, Classes):
        return {name: table.endpoint.label == i for i, name in enumerate(table.endpoint.names)}
    competing = table.survival.competing
    if competing is None:
        return {"censored": ~table.event, "event": table.event}
    return {"censored": ~table.event & ~competing, "competing": competing, "event": table.event}


def _number(encoding: Encoding, values: FloatArray, groups: dict[str, BoolArray]) -> Row:
    # quantiles of a logarithm are logarithms of the quantiles
    shown = np.exp(values) if encoding.log else values
    name = (encoding.name or encoding.column) + (f" ({encoding.unit})" if encoding.unit else "")
    by_group = {group: quartiles(shown[chosen]) for group, chosen in groups.items()}
    missing = int(np.isnan(values).sum())
    found = np.unique(shown[np.isfinite(shown)])
    if len(found) == 2:  # a yes and a no: quartiles say nothing of it
        level = np.where(np.isfinite(shown), shown == found[1], -1)
        shares = {group: _share(level[chosen], 1) for group, chosen in groups.items()}
        return _row(name, f"{found[1]:g}: count (share)", _share(level, 1), shares, missing, _greatest(values, groups))
    return _row(name, "median (quartiles)", quartiles(shown), by_group, missing, _greatest(values, groups))


def _levels(encoding: Encoding, values: FloatArray, groups: dict[str, BoolArray]) -> list[Row]:
    known = np.isfinite(values).all(axis=1)
    level = np.full(len(values), -1)
    if encoding.ordered:
        level[known] = values[known, 0].astype(int)
    else:
        level[known] = np.where(values[known].any(axis=1), values[known].argmax(axis=1) + 1, 0)
    indicators = np.where(known[:, None], level[:, None] == np.arange(1, len(encoding.levels)), np.nan)
    smd = _greatest(indicators, groups)
    rows = []
    for i, name in enumerate(encoding.levels):
        by_group = {group: _share(level[chosen], i) for group, chosen in groups.items()}
        missing = int((~known).sum())
        rows.append(
            _row(encoding.name or encoding.column, name, _share(level, i), by_group, missing, smd if i == 0 else None)
        )
    return rows


def _greatest(values: FloatArray, groups: dict[str, BoolArray]) -> float | None:
    found = [standardised_difference(values[a], values[b]) for a, b in combinations(groups.values(), 2)]
    held = [value for value in found if np.isfinite(value)]
    return max(held) if held else None


def quartiles(values: FloatArray) -> str:
    """Median and quartiles of the finite values, all with the decimals that give the median three digits; "" for none.

    >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0])), quartiles(np.array([9.0, 26.0, 27.4, 47.26, 60.0]))
    ('3 (2 to 4)', '27.4 (26.0 to 47.3)')
    """
    held = values[np.isfinite(values)]
    if not len(held):
        return ""
    low, middle, high = np.percentile(held, [25, 50, 75])
    size = abs(middle) or max(abs(low), abs(high))
    decimals = 2 - math.floor(math.log10(size)) if size else 0
    if all(value == round(value) for value in (low, middle, high)):
        decimals = 0
    form = f".{max(0, decimals)}f" if decimals <= 4 else ".3g"
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _share(level: np.ndarray[Any, Any], at: int) -> str:
    known = int((level >= 0).sum())
    count = int((level == at).sum())
    return f"{count} ({100 * count / known:.0f} %)" if known else "0"


def _row(
    variable: str, level: str, overall: object, groups: dict[str, Any], missing: int = 0, smd: float | None = None
) -> Row:
    return {
        "variable": variable,
        "level": level,
        "overall": overall,
        **groups,
        "smd": "" if smd is None else smd,
        "missing": missing,
    }
