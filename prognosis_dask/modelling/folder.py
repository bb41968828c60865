"""A folder of models, written and read by its schema: one table one CSV, and a summary in JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prognosis_dask.errors import StatisticsError, StoreError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.reading import ReadTable
from prognosis_dask.modelling.metrics.kaplan_meier import median_follow_up
from prognosis_dask.modelling.saved import ARRAYS, MODEL, Frozen, count_cases, load_frozen
from prognosis_dask.modelling.schema import TABLES, check_summary, table_spec
from prognosis_dask.modelling.table_spec import Tables
from prognosis_dask.publish import publish_folder, staging

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"


def publish_tables(out: Path | str | None, summary: Mapping[str, Any], tables: Tables) -> Path | None:
    """Write tables that no model belongs to into ``out/models``, whole or not at all; nothing without ``out``.

    Raises
    ------
    StatisticsError
        When a model is there, which would be lost.
    """
    if out is None:
        return None
    folder = Path(out) / "models"
    if (folder / MODEL).is_file():
        raise StatisticsError(f"{out} holds a model, which would be lost; choose another folder with -o")
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        write_tables(staged, tables)
        write_summary(staged, summary)
        publish_folder(staged, folder)
    return Path(out)


def describe_table(read: ReadTable) -> dict[str, Any]:
    """Counts of what was read."""
    table = read.table
    summary: dict[str, Any] = dict(count_cases(table)) | {"left_out": dict(read.left_out)}
    summary["rows"] = "patient" if read.by_patient else "case"
    if isinstance(table.endpoint, Classes):
        counts = np.bincount(table.endpoint.label, minlength=len(table.endpoint.names))
        summary["classes"] = dict(zip(table.endpoint.names, counts.tolist(), strict=True))
    else:
        summary["median_follow_up_days"] = number_or_none(median_follow_up(table.endpoint))
    return summary


def headline(tables: Tables, procedure: str, classes: bool) -> dict[str, Any]:
    """The figures of a procedure that stand first: C-index or AUC, held out with interval, and in sample."""
    name, short = ("auc", "auc") if classes else ("harrell_c", "c_index")
    rows = [r for r in tables["measures"] if r["procedure"] == procedure and r["measure"] == name]
    held_out = next((r for r in rows if not r["in_sample"]), {})
    flattering = next((r for r in rows if r["in_sample"]), {})
    found = {
        f"{short}_cv": held_out.get("value"),
        f"{short}_cv_lower": held_out.get("lower"),
        f"{short}_cv_upper": held_out.get("upper"),
        f"{short}_in_sample": flattering.get("value"),
    }
    if not classes:
        log_rank = [r for r in tables["measures"] if r["procedure"] == procedure and r["measure"] == "log_rank_p"]
        found["logrank_p"] = next((r["value"] for r in log_rank if not r["in_sample"]), None)
    return {key: number_or_none(value) for key, value in found.items()}


def number_or_none(value: object) -> float | None:
    """A finite number as it is, anything else as None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def write_tables(folder: Path, tables: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """Write one CSV file per table that has rows, its columns in the order of the schema.

    Raises
    ------
    StatisticsError
        When a table, a column or a value is not what the schema says; names it.
    """
    for name, rows in tables.items():
        spec = table_spec(name)
        if rows:
            columns = spec.ordered(dict.fromkeys(column for row in rows for column in row))
            for row in rows:
                spec.check_row(row)
            _write_csv(folder / f"{name}.csv", rows, columns)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``.

    Raises
    ------
    StatisticsError
        When it has a key that the schema does not know, or a value of another kind.
    """
    check_summary(summary)
    write_json(folder / SUMMARY, summary)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys; NaN is an empty cell."""
    _write_csv(path, rows, list(rows[0]))


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that every reader takes: no NaN."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class ModelFolder:
    """What ``models/`` holds; what is missing there is None or empty here.

    Attributes
    ----------
    summary
        ``summary.json``: counts, headline figures, notes.
    procedures
        ``procedures.json``: what was compared, by name.
    frozen
        The final model; None where none was written.
    tables
        The tables that were written and hold a row, with the columns of :mod:`modelling.schema`.
    """

    summary: Mapping[str, Any]
    procedures: Mapping[str, Any] = field(default_factory=dict)
    frozen: Frozen | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame | None:
        """A table; None where it was not written."""
        return self.tables.get(name)

    def primary_rows(self, name: str) -> pd.DataFrame | None:
        """The rows of the final procedure in a table; None where there are none."""
        table = self.table(name)
        rows = None if table is None else table[table["procedure"] == self.primary]
        return None if rows is None or rows.empty else rows

    @property
    def not_fitted(self) -> str:
        """Why there is no model, empty where there is one."""
        return str(self.summary.get("not_fitted") or "")

    @property
    def names(self) -> list[str]:
        """The procedures, the final one first, then in the order of the comparison."""
        return sorted(self._names, key=lambda name: name != self.primary)

    @property
    def primary(self) -> str:
        """The procedure of the final model; the first where no model was fitted."""
        return str(self.summary.get("procedure") or next(iter(self._names), ""))

    @property
    def external(self) -> bool:
        """Whether the tables are those of a model that was fitted on another cohort."""
        return bool(self.summary.get("external"))

    @property
    def fitted(self) -> bool:
        """Whether a model was fitted on these cases, not procedures compared or another's model validated."""
        return bool(self.summary.get("procedure")) and not self.external

    @property
    def _names(self) -> list[str]:
        found = [table for name in ("measures", "folds") if (table := self.table(name)) is not None]
        return list(dict.fromkeys([*self.procedures, *(name for table in found for name in table["procedure"])]))

    @property
    def classes(self) -> bool:
        """Whether a class was predicted, not survival."""
        return "roc" in self.tables or "confusion" in self.tables or bool(self.summary.get("classes"))

    @property
    def headline(self) -> str:
        """The measure that sums up a model: Harrell's C, else the area under the ROC curve."""
        return "auc" if self.classes else "harrell_c"

    def measure(self, name: str, *, in_sample: bool = False) -> pd.DataFrame | None:
        """The rows of one measure, a procedure each; None where there are none."""
        table = self.table("measures")
        rows = None if table is None else table[(table["measure"] == name) & (table["in_sample"] == int(in_sample))]
        return None if rows is None or rows.empty else rows

    def measure_of(self, name: str, procedure: str = "", *, in_sample: bool = False) -> pd.Series | None:
        """One measure's first row of a procedure, of the final one unless another is named; None where none is."""
        rows = self.measure(name, in_sample=in_sample)
        own = None if rows is None else rows[rows["procedure"] == (procedure or self.primary)]
        return None if own is None or own.empty else own.iloc[0]

    def estimate(self, procedure: str = "") -> tuple[float, float, float] | None:
        """The headline measure of held-out cases and its interval's ends (NaN where there is none)."""
        row = self.measure_of(self.headline, procedure)
        if row is None or not np.isfinite(row["value"]):
            return None
        return float(row["value"]), float(row["lower"]), float(row["upper"])

    def in_sample(self) -> float | None:
        """The headline measure of the cases that the final model was fitted on."""
        row = self.measure_of(self.headline, in_sample=True)
        return None if row is None else float(row["value"])


def read_models(folder: Path) -> ModelFolder | None:
    """Read a folder of models; None where there is no summary.json.

    Raises
    ------
    StoreError, StatisticsError
        When a file, or the frozen model, cannot be read, or a table is not what the schema says.
    """
    summary = read_json(folder / SUMMARY)
    if summary is None:
        return None
    tables = {spec.name: read_table(folder, spec.name) for spec in TABLES}
    return ModelFolder(
        summary,
        read_json(folder / "procedures.json") or {},
        load_frozen(folder) if (folder / MODEL).is_file() and (folder / ARRAYS).is_file() else None,
        {name: table for name, table in tables.items() if table is not None},
    )


def read_table(folder: Path, name: str) -> pd.DataFrame | None:
    """Read a table of a folder of models; None where it was not written, or has no row.

    Raises
    ------
    StoreError
        When it cannot be read, or a column is unknown, missing or of another kind; names table and column.
    """
    import pandas as pd

    path, spec = folder / f"{name}.csv", table_spec(name)
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            columns = next(csv.reader(stream), [])
        spec.ordered(columns)
        text = {column: str for column in columns if spec.column(column).kind in ("text", "cell")}
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        for column in columns:
            if column not in text and not pd.api.types.is_numeric_dtype(table[column]):
                known = pd.to_numeric(table[column], errors="coerce").notna()
                spec.check_row({column: table[column][~known].dropna().iloc[0]})
    except (ValueError, OSError, pd.errors.ParserError, StatisticsError) as error:
        raise StoreError(f"cannot read {path} ({error}); fit the models again") from error
    return table if len(table) else None


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file.

    Raises
    ------
    StoreError
        When it is none.
    """
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is not JSON ({error}); run the job again") from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} holds {type(data).__name__}, expected an object; run the job again")
    return data


def known_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        return read_json(path) or {}
    except (OSError, StoreError):
        return {}
