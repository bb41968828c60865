"""``problems.csv``: what could not be used, where, and why."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path

from prognosis_dask.errors import Code, JobError, Problem

_COLUMNS = tuple(field.name for field in fields(Problem))


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write the whole table, sorted, so that equal runs give equal files. The old one stays until the new is whole."""
    working = path.with_name(path.name + ".tmp")
    with working.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows(sorted({astuple(problem) for problem in problems}))
    working.replace(path)


def read_problems(path: Path) -> list[Problem]:
    """Read what :func:`write_problems` wrote.

    Raises
    ------
    JobError
        When the file is missing or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [Problem(**{**row, "code": Code(row["code"])}) for row in csv.DictReader(stream)]  # type: ignore[arg-type]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise JobError(f"{path} is no table of problems ({error}); `prognosis index` writes one") from error
