"""What a folder of models holds, as files: one table one CSV, and a summary in JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.reading import ReadTable
from prognosis_dask.modelling.saved import MODEL, count_cases
from prognosis_dask.modelling.validation.evaluate import Tables
from prognosis_dask.storage.publish import publish_folder, staging


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
        write_json(staged / "summary.json", summary)
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
    return summary


def headline(tables: Tables, procedure: str, classes: bool) -> dict[str, Any]:
    """The figures of a procedure that stand first: C-index or AUC, held out with interval, and in sample."""
    name, short = ("auc", "auc") if classes else ("harrell_c", "c_index")
    rows = [r for r in tables["measures"] if r["procedure"] == procedure and r["measure"] == name]
    honest = next((r for r in rows if not r["in_sample"]), {})
    flattering = next((r for r in rows if r["in_sample"]), {})
    found = {
        f"{short}_cv": honest.get("value"),
        f"{short}_cv_lower": honest.get("lower"),
        f"{short}_cv_upper": honest.get("upper"),
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
    """Write one CSV file per table that has rows."""
    for name, rows in tables.items():
        if rows:
            write_csv(folder / f"{name}.csv", rows)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys; NaN is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that every reader takes: no NaN."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _cell(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
