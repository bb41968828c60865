"""From the tables of a model of classes to its own figures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prognosis_dask.report import class_figures
from prognosis_dask.report.canvas import LINES
from prognosis_dask.report.headline import estimate
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.model_pictures import HELD_OUT, shown_procedures
from prognosis_dask.report.picture import Picture
from prognosis_dask.report.words import with_interval


def roc(models: ModelFolder) -> Picture | None:
    """ROC curves of every procedure, or of every class of the final one."""
    table = models.table("roc", "procedure", "false_positive_rate", "true_positive_rate")
    if table is None:
        return None
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, "lower", "upper"])))
    curves = _roc_curves(models, table)
    several = "class" in table and table["class"].nunique() > 1
    of = f" of “{models.primary}”, one class against the others" if several else ""
    return Picture(
        "roc",
        class_figures.roc(curves),
        table,
        f"ROC curves: {'; '.join(label for label, _ in curves)}.",
        f"Receiver operating characteristic{of}, mean over the folds. {HELD_OUT} Numbers: area under the curve"
        f"{'' if several else ' with its 95 % interval'}; band: 95 % interval of the first curve. Dotted: guessing.",
    )


def _roc_curves(models: ModelFolder, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    classes = list(dict.fromkeys(table["class"])) if "class" in table else []
    if len(classes) > 1:
        own = table[table["procedure"] == models.primary]
        parts = [(name, own[own["class"] == name].sort_values("false_positive_rate")) for name in classes[: len(LINES)]]
        # the mean curve's area is the mean of the folds'
        areas = [_area(part) for _, part in parts]
        return [(f"class {name}, {area:.2f}", part) for (name, part), area in zip(parts, areas, strict=True)]
    curves = []
    for name in shown_procedures(models, table)[0]:
        found = estimate(models, name)
        label = f"{name}, {with_interval(*found)}" if found else name
        curves.append((label, table[table["procedure"] == name]))
    return curves


def _area(curve: pd.DataFrame) -> float:
    """By trapezia."""
    x, y = (curve[name].to_numpy(dtype=float) for name in ("false_positive_rate", "true_positive_rate"))
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def confusion(models: ModelFolder) -> Picture | None:
    """The confusion matrix of the final procedure."""
    table = models.table("confusion", "procedure", "true", "predicted", "cases")
    if table is None:
        return None
    part = table[table["procedure"] == models.primary]
    if part.empty:
        return None
    order = list(dict.fromkeys([*part["true"], *part["predicted"]]))
    counts = part.pivot_table(index="true", columns="predicted", values="cases", aggfunc="sum", fill_value=0)
    counts = counts.reindex(index=order, columns=order, fill_value=0)
    right = float(np.trace(counts.to_numpy(dtype=float)) / max(counts.to_numpy(dtype=float).sum(), 1e-12))
    return Picture(
        "confusion",
        class_figures.confusion(counts),
        part,
        f"Confusion matrix of {models.primary}: {100 * right:.0f} % of the predictions are right.",
        f"Confusion matrix of “{models.primary}”: predictions of held-out cases (mean over the repeats), and their "
        "share of the true class (shaded).",
    )
