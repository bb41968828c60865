"""The figure that sums up a model, honest and in-sample, and what the one says of the other."""

from __future__ import annotations

import numpy as np

from prognosis_dask.errors import count
from prognosis_dask.report.measures import describe
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.words import number, with_interval


def headline(models: ModelFolder) -> str:
    """The measure that sums up a model: Harrell's C, else the area under the ROC curve."""
    return "auc" if models.classes else "harrell_c"


def estimate(models: ModelFolder, procedure: str = "") -> tuple[float, float, float] | None:
    """The headline measure of held-out cases and its interval's ends (NaN where there is none)."""
    rows = models.measure(headline(models))
    rows = rows[rows["procedure"] == (procedure or models.primary)]
    if rows.empty or not np.isfinite(rows["value"].iloc[0]):
        return None
    row = rows.iloc[0]
    return float(row["value"]), float(row["lower"]), float(row["upper"])


def in_sample(models: ModelFolder, procedure: str = "") -> float | None:
    """The headline measure of the cases that the model was fitted on."""
    rows = models.measure(headline(models), in_sample=True)
    rows = rows[rows["procedure"] == (procedure or models.primary)]
    return None if rows.empty else float(rows["value"].iloc[0])


def curve_of(models: ModelFolder) -> tuple[str, str]:
    """Whose ranking the in-sample curve follows, and the column that holds its figures."""
    return str(
        models.summary.get("curve") or models.primary
    ), "auc_in_sample" if models.classes else "c_index_in_sample"


def verdict(models: ModelFolder) -> str:
    """What the in-sample figures would have said beside the honest ones, in words."""
    found, flattering = estimate(models), in_sample(models)
    title = describe(headline(models)).title
    said = []
    if flattering is not None and found is not None:
        gap = flattering - found[0]
        said.append(
            f"Judged on the cases that it was fitted on, the model would have been reported with {title} "
            f"{number(flattering)}; on cases that it had not seen it has {with_interval(*found)}. "
            + (f"The difference of {number(gap)} is optimism, not skill." if gap >= 0.005 else "The two hardly differ.")
        )
    if chance := _beside_chance(models):
        said.append(chance)
    if found is not None and found[1] <= (describe(headline(models)).no_skill or 0.5):
        said.append("The interval of the honest figure includes guessing.")
    return " ".join(said)


def _beside_chance(models: ModelFolder) -> str:
    """What random features give in-sample where the selected ones give so much."""
    ranking, column = curve_of(models)
    curve = models.table("curve", "k", column, "random_median", "random_lower", "random_upper")
    if curve is None:
        return ""
    # where most of all features are drawn, random ones are the selected ones
    chosen = curve[curve["k"] <= curve["of"] / 2] if "of" in curve else curve
    last = (curve if chosen.empty else chosen).iloc[-1]
    found = estimate(models, ranking)
    value = last[column]
    if not np.isfinite([value, last["random_upper"]]).all():
        return ""
    if value <= last["random_median"]:
        judged = "no more than chance gives at that size."
    elif value <= last["random_upper"]:
        judged = "within their range, so chance can give as much at that size."
    else:
        judged = "more than any of the random draws, as selection on the same cases achieves on noise too."
    honest = (
        f" On held-out cases “{ranking}” has {with_interval(*found)}." if found and ranking != models.primary else ""
    )
    return (
        f"In-sample, {count(int(last['k']), 'feature')} drawn at random give {number(last['random_median'], 3)} "
        f"({number(last['random_lower'], 3)} to {number(last['random_upper'], 3)}) where what “{ranking}” "
        f"selects gives {number(value, 3)}: {judged}{honest}"
    )
