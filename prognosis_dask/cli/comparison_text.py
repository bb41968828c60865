"""The figures of compared procedures as a few lines of text, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prognosis_dask.modelling.table_spec import Row, Tables

#: What is printed of each procedure, where it was measured; the tables hold more.
_SHOWN = ("harrell_c", "uno_c", "ibs", "calibration_slope", "auc", "balanced_accuracy")
#: The measure whose differences are printed.
_TESTED = ("harrell_c", "auc")


def comparison_text(tables: Tables) -> str:
    """Held-out figures with intervals, in-sample ones beside them, differences with their p-values."""
    parts = [_measures(tables.get("measures", ())), _differences(tables.get("differences", ()))]
    parts += [_plain(rows) for name, rows in tables.items() if name in ("bootstrap", "permutation")]
    return "\n\n".join(part for part in parts if part)


def _measures(rows: Sequence[Row]) -> str:
    lines = [("procedure", "measure", "held out (95 % interval)", "in sample")]
    for row in rows:
        if row["in_sample"] or row["measure"] not in _SHOWN:
            continue
        same = ("procedure", "measure", "horizon_days")
        flattering = next((r for r in rows if r["in_sample"] and all(_equal(r[key], row[key]) for key in same)), None)
        days = row["horizon_days"]
        name = row["measure"] + (f" at {days:g} days" if isinstance(days, int | float) and math.isfinite(days) else "")
        held_out = f"{_number(row['value'])} ({_number(row['lower'])} to {_number(row['upper'])})"
        lines.append((row["procedure"], name, held_out, _number(flattering["value"]) if flattering else ""))
    return _aligned(lines) if len(lines) > 1 else ""


def _differences(rows: Sequence[Row]) -> str:
    lines = [("a", "b", "measure", "a - b (95 % interval)", "p", "p, Wilcoxon")]
    for row in rows:
        if row["measure"] in _TESTED:
            difference = f"{row['difference']:+.3f} ({row['lower']:+.3f} to {row['upper']:+.3f})"
            tests = (_number(row["p"]), _number(row["p_wilcoxon"]))
            lines.append((row["a"], row["b"], row["measure"], difference, *tests))
    return _aligned(lines) if len(lines) > 1 else ""


def _plain(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    body = [tuple(v if isinstance(v, str) else _number(v) for v in row.values()) for row in rows]
    return _aligned([tuple(rows[0]), *body])


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else "-"


def _equal(first: Any, second: Any) -> bool:
    return bool(first == second or (first != first and second != second))
