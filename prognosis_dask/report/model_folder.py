"""The folder of models that ``prognosis fit`` writes, read once; what is missing there is None or empty here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from prognosis_dask.errors import StoreError
from prognosis_dask.modelling.saved import ARRAYS, MODEL, Frozen, thaw

#: The tables that the report reads.
TABLES = (
    "folds", "predictions", "measures", "differences", "auc_t", "calibration", "net_benefit", "kaplan_meier",
    "selection", "coefficients", "ph", "curve", "correlation", "added", "table1", "confusion", "roc",
    "bootstrap", "permutation",
)  # fmt: skip

_TEXT = (
    "procedure", "case_id", "patient_id", "group", "feature", "with", "a", "b", "measure", "kind", "class", "true",
    "predicted", "base", "added", "variable", "level",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFolder:
    """What ``models/`` holds.

    Attributes
    ----------
    summary
        ``summary.json``: counts, headline figures, notes.
    procedures
        ``procedures.json``: what was compared, by name.
    frozen
        The final model; None where none was written.
    tables
        The tables that were written and hold a row.
    """

    summary: Mapping[str, Any]
    procedures: Mapping[str, Any] = field(default_factory=dict)
    frozen: Frozen | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def table(self, name: str, *columns: str) -> pd.DataFrame | None:
        """A table that has the columns; None where it was not written, or lacks one of them."""
        found = self.tables.get(name)
        return found if found is not None and set(columns) <= set(found.columns) else None

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
        names = list(self.procedures)
        for table in ("measures", "folds"):
            found = self.table(table, "procedure")
            names += [] if found is None else list(found["procedure"])
        return list(dict.fromkeys(names))

    @property
    def classes(self) -> bool:
        """Whether a class was predicted, not survival."""
        return "roc" in self.tables or "confusion" in self.tables or bool(self.summary.get("classes"))

    def measure(self, name: str, horizon: float | None = None, *, in_sample: bool = False) -> pd.DataFrame:
        """The rows of one measure: ``procedure``, ``value``, ``lower``, ``upper``."""
        table = self.table("measures", "procedure", "measure", "value")
        if table is None:
            return pd.DataFrame(columns=["procedure", "value", "lower", "upper"])
        chosen = (table["measure"] == name) & (table["in_sample"].fillna(0).astype(int) == int(in_sample))
        if horizon is not None:
            chosen &= table["horizon_days"] == horizon
        return table[chosen]


def read_models(folder: Path) -> ModelFolder | None:
    """Read a folder of models; None where there is no summary.json.

    Raises
    ------
    StoreError, StatisticsError
        When a file, or the frozen model, cannot be read.
    """
    summary = read_json(folder / "summary.json")
    if summary is None:
        return None
    tables = {name: _table(folder / f"{name}.csv") for name in TABLES}
    return ModelFolder(
        summary,
        read_json(folder / "procedures.json") or {},
        thaw(folder) if (folder / MODEL).is_file() and (folder / ARRAYS).is_file() else None,
        {name: table for name, table in tables.items() if table is not None},
    )


def _table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    table_one = path.stem == "table1"  # its cells are shown as they are written
    try:
        text = str if table_one else dict.fromkeys(_TEXT, str)
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        # predicted classes are text, predicted probabilities stand beside observed ones
        numbers = ("smd", "missing") if table_one else ("predicted",) if "observed" in table else ()
        for name in set(numbers) & set(table.columns):
            table[name] = pd.to_numeric(table[name])
    except (ValueError, pd.errors.ParserError) as error:
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
