"""The cohort's characteristics by outcome, and what is missing of them."""

from __future__ import annotations

import numpy as np

from prognosis_dask.report.content import Rows, Table
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.records import records
from prognosis_dask.report.words import breakable, number, with_powers


def table_one(models: ModelFolder) -> Table | None:
    """The cohort's characteristics by outcome, with standardised differences."""
    table = models.table("table1", "variable", "level", "overall", "smd")
    if table is None:
        return None
    by = [c for c in table.columns if c not in ("variable", "level", "overall", "smd", "missing")]
    groups: list[Rows] = [Rows("", [])]
    for variable, part in table.groupby("variable", sort=False):
        name = with_powers(str(variable))
        levels = [
            (_text(row["level"]), [_text(row[c]) for c in ("overall", *by)] + [_smd(row["smd"])])
            for _, row in part.iterrows()
        ]
        lost = part["missing"].fillna(0).iloc[0] if "missing" in part else 0
        unknown = f"; missing {lost:g}" if lost > 0 else ""
        if len(levels) > 1:
            groups.append(Rows(f"{name}{unknown}", [[f"\N{EM SPACE}{level}", *cells] for level, cells in levels]))
            continue
        level, cells = levels[0]
        if groups[-1].title:
            groups.append(Rows("", []))
        single = [f"{name}, {level}{unknown}" if level else f"{name}{unknown}", *cells]
        groups[-1] = Rows("", [*groups[-1].rows, single])
    groups = [group for group in groups if group.rows]
    return Table(
        "Characteristics of the cases in the analysis. SMD: standardised difference between the groups (Austin 2009; "
        "below 0.1 is usually taken as balanced).",
        ("Characteristic", "Overall", *(c.replace("_", " ") for c in by), "SMD"),
        "l" + "v" * (len(by) + 1) + "n",
        groups,
    )


def _smd(value: object) -> str:
    return number(float(value)) if isinstance(value, int | float) and np.isfinite(value) else ""


def _text(value: object) -> str:
    """A cell, which may break before its bracket."""
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else breakable(str(value))


def missing(models: ModelFolder) -> Table | None:
    """Missing values by variable, where there are any."""
    table = models.table("table1", "variable", "missing")
    cases = models.summary.get("n_cases")
    if table is None:
        return None
    rows = table.drop_duplicates("variable")
    rows = rows[rows["missing"].fillna(0) > 0]
    if rows.empty:
        return None
    body = [
        (
            with_powers(r.variable),
            f"{r.missing:.0f}",
            f"{100 * r.missing / cases:.1f} %" if isinstance(cases, int) and cases else "–",
        )
        for r in records(rows.sort_values("missing", ascending=False, kind="stable"))
    ]
    return Table(
        "Missing values of the cases in the analysis. Within each fold the training cases’ median takes their place.",
        ("Variable", "Cases without it", "Share"),
        "lnn",
        [Rows("", body)],
    )
