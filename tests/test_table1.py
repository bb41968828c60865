"""Table 1 counts what pandas counts, and its standardised differences follow their published formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.data.table_one import standardised_difference, table1_rows

HISTOLOGY = Encoding("histology", "clinical", levels=("nos", "adeno", "large"))
STAGE = Encoding("stage", "stage", levels=("I", "II"), ordered=True)
AGE, VOLUME = Encoding("age", "clinical", "a"), Encoding("volume", "volume", "mL", log=True)


def made(n: int = 60) -> tuple[FeatureTable, pd.DataFrame]:
    rng = np.random.default_rng(0)
    raw = pd.DataFrame(
        {
            "age": rng.normal(60, 10, n),
            "volume": np.exp(rng.normal(3, 1, n)),
            "level": rng.integers(0, 3, n),
            "stage": rng.integers(0, 2, n).astype(float),
            "event": rng.random(n) < 0.6,
        }
    )
    raw.loc[:4, "age"] = np.nan
    raw.loc[3:5, "stage"] = np.nan
    X = np.column_stack([raw["age"], np.log(raw["volume"]), raw["level"] == 1, raw["level"] == 2, raw["stage"]])
    ids = tuple(f"P{i}" for i in range(n))
    encodings = (AGE, VOLUME, HISTOLOGY, STAGE)
    features = tuple(name for encoding in encodings for name in encoding.features)
    endpoint = Survival(rng.uniform(1, 9, n), raw["event"].to_numpy())
    return FeatureTable(X.astype(float), features, ("clinical",) * 5, ("",) * 5, ids, ids, endpoint), raw


def test_counts_quartiles_and_missing_values_are_those_of_pandas() -> None:
    table, raw = made()
    rows = {(row["variable"], row["level"]): row for row in table1_rows(table, (AGE, VOLUME, HISTOLOGY, STAGE))}
    assert rows["cases", ""]["event"] == int(raw["event"].sum())
    low, middle, high = raw["volume"].quantile([0.25, 0.5, 0.75])
    assert rows["volume (mL)", "median (quartiles)"]["overall"] == f"{middle:.1f} ({low:.1f} to {high:.1f})"
    assert (rows["age (a)", "median (quartiles)"]["missing"], rows["stage", "I"]["missing"]) == (5, 3)
    large = raw[raw["event"]]["level"] == 2
    assert rows["histology", "large"]["event"] == f"{large.sum()} ({100 * large.mean():.0f} %)"
    known = raw["stage"].dropna()
    assert rows["stage", "II"]["overall"] == f"{(known == 1).sum()} ({100 * (known == 1).mean():.0f} %)"


def test_a_numbers_difference_is_that_of_means_over_the_pooled_deviation() -> None:
    table, raw = made()
    a, b = (raw.loc[raw["event"] == event, "age"].dropna() for event in (False, True))
    expected = abs(a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2)  # Austin 2009
    (row,) = [row for row in table1_rows(table, (AGE,)) if row["variable"] == "age (a)"]
    assert row["smd"] == pytest.approx(expected)


def test_levels_differ_by_yang_and_daltons_multinomial_distance() -> None:
    table, raw = made()
    shares = [np.array([(raw.loc[raw["event"] == e, "level"] == k).mean() for k in (1, 2)]) for e in (False, True)]
    S = np.zeros((2, 2))
    for k in range(2):
        for m in range(2):
            terms = [p[k] * (1 - p[k]) if k == m else -p[k] * p[m] for p in shares]
            S[k, m] = sum(terms) / 2
    gap = shares[0] - shares[1]
    (row, *others) = [row for row in table1_rows(table, (HISTOLOGY,)) if row["variable"] == "histology"]
    assert row["smd"] == pytest.approx(float(np.sqrt(gap @ np.linalg.inv(S) @ gap)))
    assert [other["smd"] for other in others] == ["", ""]


def test_of_three_groups_the_greatest_difference_between_two_stands() -> None:
    table, raw = made()
    label = np.arange(len(raw)) % 3
    classes = replace(table, endpoint=Classes(label, ("a", "b", "c")))
    (row,) = [row for row in table1_rows(classes, (AGE,)) if row["variable"] == "age (a)"]
    ages = [raw["age"].to_numpy()[label == k] for k in range(3)]
    pairs = [standardised_difference(ages[i], ages[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert row["smd"] == pytest.approx(max(pairs))
    assert {"a", "b", "c"} <= set(row)


def test_what_has_no_spread_or_too_few_cases_has_a_stated_difference() -> None:
    same = np.full(5, 2.0)
    assert standardised_difference(same, same) == 0
    assert standardised_difference(same, same + 1) == float("inf")
    assert np.isnan(standardised_difference(same[:1], same))


def test_numbers_of_two_values_are_counted() -> None:
    table, raw = made()
    sex = np.where(raw["event"], 2.0, 1.0)
    sex[7] = np.nan
    table = replace(table, X=np.column_stack([table.X, sex]), features=(*table.features, "sex"),
                    families=(*table.families, "clinical"), units=(*table.units, ""))  # fmt: skip
    (row,) = [row for row in table1_rows(table, [Encoding("sex", "clinical")]) if row["variable"] == "sex"]
    women = int(np.nansum(sex == 2))
    assert (row["level"], row["overall"]) == ("2: count (share)", f"{women} ({100 * women / 59:.0f} %)")
    assert row["missing"] == 1
