"""The tables of a models folder are what their schema says, written and read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prognosis_dask.errors import StatisticsError, StoreError
from prognosis_dask.modelling.folder import read_models, read_table, write_summary, write_tables
from prognosis_dask.modelling.schema import SUMMARY, TABLES, documentation, table_spec

ROC: dict[str, Any] = {
    "procedure": "a",
    "class": "3",
    "false_positive_rate": 0.1,
    "true_positive_rate": 0.123456789012345678,
    "lower": math.nan,
    "upper": None,
}


def test_the_documentation_is_the_schema() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "models.md"
    assert page.read_text(encoding="utf-8") == documentation(), "make docs/models.md anew: its fourth line says how"


def test_every_column_is_described_once() -> None:
    assert len({spec.name for spec in TABLES}) == len(TABLES)
    for spec in TABLES:
        names = [column.name for column in spec.columns]
        assert len(set(names)) == len(names)
        for column in spec.columns:
            assert column.meaning
            assert bool(column.unit) == (column.kind in ("integer", "number")), (spec.name, column.name)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [dict(reversed(ROC.items())), ROC | {"class": "10", "lower": 0.5}]
    write_tables(tmp_path, {"roc": rows, "confusion": []})
    assert (tmp_path / "roc.csv").read_text().splitlines()[0] == ",".join(ROC)
    assert not (tmp_path / "confusion.csv").exists()
    table = read_table(tmp_path, "roc")
    assert table is not None
    assert list(table["class"]) == ["3", "10"]  # names of classes are no numbers
    assert list(table["lower"].isna()) == [True, False]
    assert read_table(tmp_path, "confusion") is None


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("rok", ROC, "unknown table 'rok', expected one of folds, .*roc"),
        (
            "roc",
            ROC | {"sensitivity": 1.0},
            "roc.csv: unknown column 'sensitivity', expected procedure, class, .*upper",
        ),
        ("roc", {k: v for k, v in ROC.items() if k != "lower"}, "roc.csv: column 'lower' is missing, seen procedure,"),
        ("roc", ROC | {"lower": "low"}, "roc.csv: lower is 'low', expected a number"),
        ("roc", ROC | {"class": 3}, "roc.csv: class is 3, expected text"),
        ("ph", {"feature": "f", "statistic": 1.0, "p": "x"}, "ph.csv: p is 'x', expected a number"),
        (
            "calibration",
            {"procedure": "a", "horizon_days": 1.0, "class": "3", "kind": "group", "predicted": 0.1, "observed": 0.1},
            "calibration.csv: columns of survival and of classes together: horizon_days, class",
        ),
        ("calibration", {"procedure": "a", "kind": "group"}, "calibration.csv: column 'horizon_days' is missing"),
    ],
)
def test_what_the_schema_does_not_know_is_not_written(
    tmp_path: Path, name: str, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(StatisticsError, match=said):
        write_tables(tmp_path, {name: [row]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("feature,statistic,p,q\nf,1,1,1\n", "unknown column 'q', expected feature, statistic, p"),
        ("feature,statistic\nf,1\n", "column 'p' is missing, seen feature, statistic"),
        ("feature,statistic,p\nf,1,0.5\ng,1,x\n", "p is 'x', expected a number"),
    ],
)
def test_what_the_schema_does_not_know_is_not_read(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "ph.csv").write_text(content)
    with pytest.raises(StoreError, match=rf"ph\.csv.*{said}.*fit the models again"):
        read_models(tmp_path)


def test_columns_of_a_kind_keep_their_place(tmp_path: Path) -> None:
    names = ["variable", "level", "overall", "low", "high", "smd", "missing"]
    assert table_spec("table1").ordered(sorted(names)) == [
        "variable", "level", "overall", "high", "low", "smd", "missing",
    ]  # fmt: skip
    assert table_spec("folds").column("train_high").of == "classes"
    write_tables(tmp_path, {"table1": [dict.fromkeys(names, "") | {"variable": "patients", "overall": 12}]})
    table = read_table(tmp_path, "table1")
    assert table is not None
    assert table["overall"].tolist() == ["12"]
    assert pd.api.types.is_numeric_dtype(table["smd"])


def test_a_summary_holds_what_is_described(tmp_path: Path) -> None:
    write_summary(tmp_path, {"n_cases": 3})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"n_cases": 3}
    with pytest.raises(StatisticsError, match=r"summary\.json: unknown key 'cases', expected one of title, n_cases"):
        write_summary(tmp_path, {"cases": 3})
    with pytest.raises(StatisticsError, match=r"summary\.json: n_cases is '3', expected a whole number"):
        write_summary(tmp_path, {"n_cases": "3"})
    assert len({column.name for column in SUMMARY}) == len(SUMMARY)
    assert {column.name for column in SUMMARY if not column.unit and column.kind in ("integer", "number")} == set()
