"""What ``fit`` must make of the reported tables whose faults lie in the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ColumnRule, EndpointRule, ModelSpec, ValidationRule
from prognosis_dask.workflows import models as modelling

#: The endpoint's columns in all of them, and one round of folds.
COMMON = ("endpoint.time=time", "endpoint.event=event", "validation.repeats=1", "validation.halves=0")
ONE_ROUND = ValidationRule(repeats=1, halves=0)


def a_single_volume_is_fitted_at_its_true_hazard_ratio(folder: Path, out: Path) -> None:
    modelling.fit(folder / "table.csv", None, out, overrides=COMMON, say=lambda _: None)
    row = pd.read_csv(out / "models" / "coefficients.csv").iloc[0]
    assert row["lower_95"] < np.exp(0.7) < row["upper_95"]
    assert row["hazard_ratio"] > 1.5
    spread = json.loads((out / "models" / "summary.json").read_text())["spread"]
    assert all(one["upper"] - one["lower"] > 0.2 for one in spread)


def what_separates_is_refused_without_a_penalty(folder: Path, out: Path) -> None:
    """`a` is 1 for those with the event: no penalty, no estimate; with the default penalties a modest one."""
    _refused(folder, out, "order the events perfectly")


def what_is_collinear_is_refused_without_a_penalty(folder: Path, out: Path) -> None:
    """`vox` is the mesh's volume but for some thousandths of a cubic millimetre."""
    _refused(folder, out, "collinear")


def _refused(folder: Path, out: Path, reason: str) -> None:
    table = pd.read_csv(folder / "table.csv")
    features = [name for name in table.columns if name not in ("PatientID", "time", "event")]
    endpoint = EndpointRule(time="time", event="event")
    columns = {name: ColumnRule(family="clinical") for name in features}
    free = {"free": Procedure(selector="", penalty=(0.0,))}
    spec = ModelSpec(endpoint=endpoint, column=columns, procedure=free, validation=ONE_ROUND)
    with pytest.raises(StatisticsError, match=f"no finite estimate, since .*({reason})") as refused:
        modelling.fit(folder / "table.csv", spec, out, say=lambda _: None)
    assert features[-1] in str(refused.value)
    held = ModelSpec(endpoint=endpoint, column=columns, validation=ONE_ROUND)
    modelling.fit(folder / "table.csv", held, out, say=lambda _: None)
    rows = pd.read_csv(out / "models" / "coefficients.csv")
    assert rows["hazard_ratio"].between(0.05, 20).all()
