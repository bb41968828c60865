"""What single patients do to figures and coefficients is measured, and whoever decides a figure is named."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from lifelines.utils import concordance_index

from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.validation.evaluate import evaluate
from prognosis_dask.modelling.validation.influence import dfbeta_rows
from prognosis_dask.modelling.validation.nested import validate
from prognosis_dask.report.sections.comparison import influence
from prognosis_dask.report.words import named
from tests.synthetic_tables import survival_table

ALL = Procedure(selector="", penalty=(0.01,))


def test_the_concordance_without_a_patient_is_that_of_the_others() -> None:
    table = survival_table(0, n=60, p=4, signal=1.0)
    results = validate(table, {"all": ALL}, ValidationRule(folds=3, repeats=1), horizons_days=(365.0,))
    rows = [row for row in evaluate(table, results, (365.0,))["influence"] if row["measure"] == "harrell_c"]
    assert len(rows) == 60
    gone = str(rows[0]["patient_id"])
    folds = []
    for result in results:
        kept = [i for i, at in enumerate(result.test) if table.patient_ids[at] != gone]
        at = result.test[kept]
        assert result.risk_score is not None
        folds.append(concordance_index(table.time_days[at], -result.risk_score[kept], table.event[at]))
    assert rows[0]["without"] == pytest.approx(np.mean(folds))


def test_one_patient_who_decides_a_figure_is_named_in_the_report() -> None:
    table = survival_table(2, n=150, p=3, signal=1.0)
    far = table.rows(np.arange(150))
    worst = int(np.argmax(np.where(table.event, 0, table.time_days)))
    fitted = fit_procedure(replace(ALL, bound=False), table, 0)
    far.X[worst] += 40 * np.sign(fitted.model.coefficient) * table.X.std(axis=0)  # the longest survivor, highest risk
    free = replace(ALL, bound=False)
    tables = evaluate(
        far, validate(far, {"all": free}, ValidationRule(folds=3, repeats=1), horizons_days=(365.0,)), (365.0,)
    )
    slope = next(row for row in tables["influence"] if row["measure"] == "calibration_slope")
    assert slope["patient_id"] == far.patient_ids[worst]
    assert slope["without"] > 1.5 * slope["value"]
    import pandas as pd

    models = ModelFolder(
        {"procedure": "all"}, tables={name: pd.DataFrame(rows) for name, rows in tables.items() if rows}
    )
    said = [getattr(block, "text", "") for block in influence(models)]
    assert any("depends on one patient" in text and named(far.patient_ids[worst]) in text for text in said)


def test_dfbeta_is_near_what_fitting_without_the_patient_changes() -> None:
    table = survival_table(1, n=120, p=3, signal=1.0)
    fitted = fit_procedure(ALL, table, 0)
    first = dfbeta_rows(fitted, table)[0]
    kept = np.array([name != first["patient_id"] for name in table.patient_ids])
    cox = partial(_cox, fitted, table)
    column = fitted.chosen.index(str(first["feature"]))
    change = (cox(np.ones(120, dtype=bool)) - cox(kept))[column]
    assert first["dfbeta"] == pytest.approx(change, rel=0.35)
    two = replace(table, patient_ids=tuple(f"P{i // 2}" for i in range(120)))
    by_patient = {(r["feature"], r["patient_id"]): r["dfbeta"] for r in dfbeta_rows(fitted, two)}
    assert len(by_patient) == 100


def _cox(fitted, table, kept: np.ndarray) -> np.ndarray:
    """Coefficients of the prepared columns of some cases, by the same penalty in all."""
    from prognosis_dask.modelling.estimators.cox import fit_proportional_hazards

    Z = fitted.prepared(table)[:, fitted.columns][kept]
    endpoint = Survival(table.time_days[kept], table.event[kept])
    (model,) = fit_proportional_hazards(Z, endpoint, [0.01 * len(kept) / kept.sum()], 0.0, [])
    return model.coefficient
