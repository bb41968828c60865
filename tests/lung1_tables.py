"""The reference study's own tables of LUNG1: features per patient, their selection, and the endpoint.

The folder holds ``summarieddeepfeatures.xlsx``, ``summariedradiomicsfeatures.xlsx``, ``SelectedFeaturesLUNG1.xlsx`` and
``nsclc-radiomics_clinical.csv``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable

Curve = list[dict[str, float]]


def read_deep(folder: Path) -> FeatureTable:
    """400 deep features of 422 patients. Row n is LUNG1-n: the table's times are checked against the clinical ones."""
    table = pd.read_excel(folder / "summarieddeepfeatures.xlsx")
    table.index = pd.Index([f"LUNG1-{n:03d}" for n in table["Unnamed: 0"].str.removeprefix("Patient-").astype(int)])
    joined = _with_endpoint(table.filter(regex="^Feature"), "deep", folder)
    assert (joined.time_days == table["duration_col"]).all()
    assert (joined.event == table["event_col"]).all()
    return joined


def read_radiomics(folder: Path) -> FeatureTable:
    """103 radiomics features of 421 patients: LUNG1-128 is absent, and the last row names no patient."""
    table = pd.read_excel(folder / "summariedradiomicsfeatures.xlsx").dropna(subset="patient").set_index("patient")
    return _with_endpoint(table, "radiomics", folder)


def read_selected(folder: Path) -> FeatureTable:
    """The study's 100 selected deep features, best first, scaled to 0..1; in the order of the deep table."""
    table = pd.read_excel(folder / "SelectedFeaturesLUNG1.xlsx")
    features = table.drop(columns=["duration_col", "event_col"])
    features.index = pd.Index([f"LUNG1-{n:03d}" for n in range(1, len(table) + 1)])
    return _with_endpoint(features, "deep", folder)


def read_clinical(folder: Path) -> FeatureTable:
    """Age and the stages of 422 patients: T, N, M, and overall as 1, 2, 3 (IIIa), 4 (IIIb); NaN where not known."""
    clinical = pd.read_csv(folder / "nsclc-radiomics_clinical.csv").set_index("PatientID")
    stage = clinical["Overall.Stage"].map({"I": 1.0, "II": 2.0, "IIIa": 3.0, "IIIb": 4.0})
    columns = clinical[["age", "clinical.T.Stage", "Clinical.N.Stage", "Clinical.M.Stage"]]
    table = _with_endpoint(columns.assign(**{"Overall.Stage": stage}), "stage", folder)
    return replace(table, families=("clinical", *table.families[1:]))


def _with_endpoint(features: pd.DataFrame, family: str, folder: Path) -> FeatureTable:
    clinical = pd.read_csv(folder / "nsclc-radiomics_clinical.csv").set_index("PatientID").loc[features.index]
    ids = tuple(map(str, features.index))
    return FeatureTable(
        features.to_numpy(dtype=float),
        tuple(map(str, features.columns)),
        (family,) * features.shape[1],
        ("",) * features.shape[1],
        ids,
        ids,
        Survival(clinical["Survival.time"].to_numpy(dtype=float), clinical["deadstatus.event"].to_numpy() == 1),
    )


def joined(first: FeatureTable, second: FeatureTable) -> FeatureTable:
    """The features of both, of the cases that both have."""
    at_first, at_second = np.intersect1d(first.case_ids, second.case_ids, return_indices=True)[1:]
    left, right = first.rows(at_first), second.rows(at_second)
    return FeatureTable(
        np.hstack([left.X, right.X]),
        left.features + right.features,
        left.families + right.families,
        left.units + right.units,
        left.case_ids,
        left.patient_ids,
        left.endpoint,
    )


def compare_curves(first: Curve, second: Curve) -> dict[str, float]:
    """Wilcoxon's signed rank test between two in-sample curves, paired by k, as the study compares feature sets.

    The points of a curve share their cases and most of their features: they are not independent observations, and the
    p value is far too small (two sets of random features differ by it as well). Comparing held-out folds avoids that.

    Parameters
    ----------
    first, second
        Rows of :func:`in_sample_curve`.

    Returns
    -------
    dict
        ``n`` (k in both), ``median_difference`` (first less second), ``statistic``, ``p``.

    Raises
    ------
    StatisticsError
        When no k is in both.
    """
    from scipy.stats import wilcoxon

    at = {row["k"]: row["c_index_in_sample"] for row in second}
    difference = np.array([row["c_index_in_sample"] - at[row["k"]] for row in first if row["k"] in at])
    difference = difference[np.isfinite(difference)]
    if not len(difference):
        raise StatisticsError("the curves have no number of features in common")
    moved = difference.any()
    statistic, p = wilcoxon(difference) if moved else (0.0, 1.0)
    return {
        "n": len(difference),
        "median_difference": float(np.median(difference)),
        "statistic": float(statistic),
        "p": float(p),
    }
