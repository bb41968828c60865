"""pyradiomics' batch table as a source: ``Image``, ``Mask``, optional ``Label``; other columns are covariates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.cohort.clinical import key, read_rows
from prognosis_dask.cohort.headers import FileStamp, stamp
from prognosis_dask.cohort.names import Volume, modality_of
from prognosis_dask.errors import Code, JobError, Problem

_PATIENT = ("id", "patient", "patientid")


@dataclass(frozen=True)
class TableRow:
    """One case as the table gives it."""

    image: FileStamp
    mask: FileStamp
    patient_id: str
    modality: str
    roi: str
    label: int
    covariates: dict[str, str] = field(default_factory=dict, hash=False)


def read_table(path: Path, label: int = 1) -> tuple[list[TableRow], list[Problem]]:
    """Read a pyradiomics batch table; paths are relative to the table, and ``label`` holds where it has no ``Label``.

    The columns ``ID``, ``Patient`` or ``PatientID``, ``Modality`` and ``ROI`` are used where they exist.

    Raises
    ------
    JobError
        When it cannot be read, or the columns ``Image`` and ``Mask`` are not there.
    """
    rows = read_rows(path)
    columns = {key(name): name for name in (rows[0] if rows else {})}
    if not {"image", "mask"} <= columns.keys():
        raise JobError(f"{path}: a table of cases needs the columns Image and Mask; it has {list(columns.values())}")
    found: list[TableRow] = []
    problems: list[Problem] = []
    for row in rows:
        try:
            found.append(_row(row, columns, path.absolute().parent, label))
        except OSError as error:
            reason = f"{path.name} names a file that cannot be read: {error.strerror}"
            where = str(error.filename)
            problems.append(
                Problem(Code.UNREADABLE_FILE, reason, patient_id=_cell(row, columns, *_PATIENT), where=where)
            )
        except ValueError as error:
            who, where = _cell(row, columns, *_PATIENT), row[columns["mask"]]
            problems.append(Problem(Code.MASK_UNREADABLE, f"{path.name}: {error}", patient_id=who, where=where))
    return found, problems


def _cell(row: dict[str, str], columns: dict[str, str], *names: str) -> str:
    return next((row[columns[name]] for name in names if name in columns and row[columns[name]]), "")


def _row(row: dict[str, str], columns: dict[str, str], folder: Path, default: int) -> TableRow:
    def cell(*names: str) -> str:
        return _cell(row, columns, *names)

    missing = [name for name in ("image", "mask") if not cell(name)]
    if missing:
        raise ValueError(f"{missing[0]} is empty")
    image, mask = Volume(stamp(str(folder / cell("image")))), Volume(stamp(str(folder / cell("mask")), checksum=True))
    label = cell("label")
    if label and not label.removesuffix(".0").isdigit():
        raise ValueError(f"Label is {label!r}, expected a whole number")
    used = {columns[name] for name in ("image", "mask", "label", "modality", "roi", *_PATIENT) if name in columns}
    return TableRow(
        image=image.file,
        mask=mask.file,
        patient_id=cell(*_PATIENT) or image.patient or image.own_folder,
        modality=modality_of(cell("modality")) or image.modality,
        roi=cell("roi") or (f"label-{int(float(label))}" if label else "mask"),
        label=int(float(label)) if label else default,
        covariates={name: value for name, value in row.items() if name not in used},
    )


def read_tables(paths: Iterable[Path]) -> tuple[list[TableRow], list[Problem]]:
    """Read several tables; their rows and problems together."""
    rows: list[TableRow] = []
    problems: list[Problem] = []
    for path in paths:
        found, faults = read_table(path)
        rows += found
        problems += faults
    return rows, problems
