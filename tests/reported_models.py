"""What ``fit`` must make of the reported tables whose faults lie in the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from prognosis_dask import modelling

#: The endpoint's columns in all of them, and one round of folds.
COMMON = ("endpoint.time=time", "endpoint.event=event", "validation.repeats=1", "validation.halves=0")


def a_single_volume_is_fitted_at_its_true_hazard_ratio(folder: Path, out: Path) -> None:
    modelling.fit(folder / "table.csv", None, out, overrides=COMMON, say=lambda _: None)
    row = pd.read_csv(out / "models" / "coefficients.csv").iloc[0]
    assert row["lower_95"] < np.exp(0.7) < row["upper_95"]
    assert row["hazard_ratio"] > 1.5
    spread = json.loads((out / "models" / "summary.json").read_text())["spread"]
    assert all(one["upper"] - one["lower"] > 0.2 for one in spread)
