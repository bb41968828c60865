"""How far a model's predictions lie apart: one that orders cases well may still say nearly the same of all of them."""

from __future__ import annotations

import numpy as np

from prognosis_dask.report.content import Text
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.words import interval, listed, span

#: Nine cases in ten whose predictions lie within this hardly differ.
_NARROW = 0.1


def of_final_model(models: ModelFolder) -> Text:
    """Between what nine in ten of the cases that the final model was fitted on are predicted; a warning if narrow."""
    rows = models.summary["spread"]
    told = listed([f"{interval(row['lower'], row['upper'], 3)} {_where(row)}" for row in rows])
    what = "a probability" if models.classes else "a survival"
    said = f"Nine in ten of the cases that it was fitted on are given {what} of {told}."
    if max(row["upper"] - row["lower"] for row in rows) >= _NARROW:
        return Text(said, "note")
    return Text(
        f"The predictions hardly differ. {said} The model orders the cases, and gives all of them nearly the same "
        "prognosis.",
        "warning",
    )


def of_held_out(models: ModelFolder) -> str:
    """Between what nine in ten held-out cases of the final procedure are predicted; empty where it is not known."""
    table = models.table("predictions", "procedure")
    if table is None:
        return ""
    own = table[table["procedure"] == models.primary]
    found = []
    for name in own.columns:
        kind, _, key = str(name).partition("_")
        values = own[name].to_numpy(dtype=float) if kind in ("survival", "probability") else np.zeros(0)
        if len(values) and np.isfinite(values).all():
            lower, upper = np.percentile(1 - values if kind == "survival" else values, [5, 95])
            where = f"at {span(float(key))}" if kind == "survival" else f"for class {key}"
            found.append(f"{interval(lower, upper)} {where}")
    if len(found) == 2 and models.classes:
        found = found[1:]
    return f" Nine in ten predictions lie from {listed(found)}." if found else ""


def _where(row: dict[str, float | str]) -> str:
    return f"for class {row['class']}" if "class" in row else f"at {span(float(row['horizon_days']))}"
