"""What single patients do to the figures of held-out cases, and to the final model's coefficients."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report.content import Block, Rows, Table, Text, titled
from prognosis_dask.report.identifiers import named
from prognosis_dask.report.read import records
from prognosis_dask.report.words import describe, number, span

#: Rows of the tables here; the CSV files hold more.
_MOST = 5
#: Where leaving out one patient moves a figure by more than this share of its interval's half width, it is named.
_MOVES = 0.5
#: A coefficient that one patient moves by more standard errors is that patient's.
_FAR = 1.0
#: χ² with one degree of freedom at p = 0.05.
_CHI2 = 3.841


def influence(models: ModelFolder) -> list[Block]:
    """The headline figures without the patient that changes each most; a warning where one patient decides."""
    rows = models.primary_rows("influence")
    if rows is None or rows["without"].isna().all():
        return []
    first = rows[rows["without"].notna()].drop_duplicates(["measure", "horizon_days"])
    shown = [
        (_title(r.measure, r.horizon_days), number(r.value, 3), named(r.patient_id), number(r.without, 3))
        for r in records(first)
    ]
    table = Table(
        "Influence: held-out figures without the one patient that changes each most, the predictions kept. Up to a "
        "hundred patients were left out in turn, those with the most extreme predictions; all in models/influence.csv.",
        ("Figure", "All patients", "Without patient", "Figure without"),
        "lnln",
        [Rows("", shown)],
    )
    moved = [said for r in records(first) if (said := _decides(models, r))]
    return [*titled("Influence of single patients", table), *(Text(said, "warning") for said in moved)]


def _title(measure: str, horizon: float) -> str:
    if measure.startswith("added_to_"):
        return f"χ² added to {measure.removeprefix('added_to_').replace('_and_', ' and ')}"
    title = describe(measure).title
    return title if np.isnan(horizon) else f"{title}, {span(horizon)}"


def _decides(models: ModelFolder, row: pd.Series) -> str:
    """That one patient decides a figure; empty where none does."""
    if row.measure.startswith("added_to_"):
        if (row.value > _CHI2) == (row.without > _CHI2):
            return ""
    else:
        table = models.measure(row.measure)
        own = None if table is None else table[table["procedure"] == models.primary]
        if own is not None and not np.isnan(row.horizon_days):
            own = own[own["horizon_days"] == row.horizon_days]
        if own is None or own.empty:
            return ""
        half_width = float(own["upper"].iloc[0] - own["lower"].iloc[0]) / 2
        if not abs(row.without - row.value) > _MOVES * half_width:
            return ""
    return (
        f"{_title(row.measure, row.horizon_days)} hangs on one patient: {number(row.value, 3)}, and "
        f"{number(row.without, 3)} without {named(row.patient_id)}. Check this patient's data."
    )


def dfbeta(models: ModelFolder) -> Table | None:
    """The coefficients of the final model that one patient changes most."""
    table = models.table("dfbeta")
    if table is None:
        return None
    far = int((table["dfbetas"].abs() > _FAR).sum())
    told = f"{far if far < len(table) else f'{far} or more'} beyond {_FAR:g}." if far else f"None beyond {_FAR:g}."
    return Table(
        "Influence on coefficients: what fitting on a patient changes a coefficient by, per standard deviation "
        f"(dfbeta) and in standard errors (dfbetas); the {min(_MOST, len(table))} greatest, more in "
        f"models/dfbeta.csv. {told}",
        ("Feature", "Patient", "dfbeta", "dfbetas"),
        "llnn",
        [
            Rows(
                "",
                [
                    (r.feature, named(r.patient_id), number(r.dfbeta, 3), number(r.dfbetas))
                    for r in records(table[:_MOST])
                ],
            )
        ],
    )
