"""pyradiomics' batch table as a source: ``Image``, ``Mask``, optional ``Label`` and ``Label_channel``.

Other columns are covariates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.cohort.clinical import key, read_rows
from prognosis_dask.cohort.headers import FileStamp, stamp
from prognosis_dask.cohort.names import Volume, modality_of
from prognosis_dask.errors import Code, JobError, Problem
from prognosis_dask.volumes.labels import LAYER

_PATIENT = ("id", "patient", "patientid")
_USED = ("image", "mask", "label", "labelchannel", "modality", "roi", *_PATIENT)


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


@dataclass(frozen=True)
class UnusableRow:
    """A row that names no image and mask that can be read; ``cells`` are as the table has them."""

    problem: Problem
    cells: dict[str, str] = field(default_factory=dict, hash=False)


def read_table(path: Path, label: int = 1) -> list[TableRow | UnusableRow]:
    """Read a pyradiomics batch table; paths are relative to the table, and ``label`` holds where it has no ``Label``.

    The columns ``ID``, ``Patient`` or ``PatientID``, ``Modality`` and ``ROI`` are used where they exist.
    ``Label_channel`` is the layer, from 0, of a mask with several values per voxel.

    Raises
    ------
    JobError
        When it cannot be read, or the columns ``Image`` and ``Mask`` are not there.
    """
    rows = read_rows(path)
    columns = {key(name): name for name in (rows[0] if rows else {})}
    if not {"image", "mask"} <= columns.keys():
        raise JobError(f"{path}: a table of cases needs the columns Image and Mask; it has {list(columns.values())}")
    return [_usable(row, columns, path, label) for row in rows]


def _usable(row: dict[str, str], columns: dict[str, str], path: Path, label: int) -> TableRow | UnusableRow:
    try:
        return _row(row, columns, path.absolute().parent, label)
    except OSError as error:
        code, where = Code.UNREADABLE_FILE, str(error.filename)
        reason = f"{path.name} names a file that cannot be read: {error.strerror}"
    except ValueError as error:
        code, where, reason = Code.MASK_UNREADABLE, row[columns["mask"]], f"{path.name}: {error}"
    patient = _cell(row, columns, *_PATIENT)
    named = {name: _cell(row, columns, name) for name in ("modality", "roi", "image", "mask", "label")}
    return UnusableRow(
        Problem(code, reason, patient_id=patient, where=where),
        {"patient_id": patient, **named, **_covariates(row, columns)},
    )


def _cell(row: dict[str, str], columns: dict[str, str], *names: str) -> str:
    return next((row[columns[name]] for name in names if name in columns and row[columns[name]]), "")


def _row(row: dict[str, str], columns: dict[str, str], folder: Path, default: int) -> TableRow:
    def cell(*names: str) -> str:
        return _cell(row, columns, *names)

    missing = [name for name in ("image", "mask") if not cell(name)]
    if missing:
        raise ValueError(f"{missing[0]} is empty")
    image, mask = Volume(stamp(str(folder / cell("image")))), Volume(stamp(str(folder / cell("mask")), checksum=True))
    label, channel = cell("label"), cell("labelchannel")
    for name, value in (("Label", label), ("Label_channel", channel)):
        if value and not value.removesuffix(".0").isdigit():
            raise ValueError(f"{name} is {value!r}, expected a whole number")
    number = (int(float(label)) if label else default) + LAYER * int(float(channel or 0))
    return TableRow(
        image=image.file,
        mask=mask.file,
        patient_id=cell(*_PATIENT) or image.patient or image.own_folder,
        modality=modality_of(cell("modality")) or image.modality,
        roi=cell("roi") or (f"label-{number}" if label or number >= LAYER else "mask"),
        label=number,
        covariates=_covariates(row, columns),
    )


def _covariates(row: dict[str, str], columns: dict[str, str]) -> dict[str, str]:
    used = {columns[name] for name in _USED if name in columns}
    return {name: value for name, value in row.items() if name not in used}


def read_tables(paths: Iterable[Path]) -> tuple[list[TableRow], list[Problem]]:
    """Read several tables; their rows and problems together."""
    found = [row for path in paths for row in read_table(path)]
    return (
        [row for row in found if isinstance(row, TableRow)],
        [row.problem for row in found if isinstance(row, UnusableRow)],
    )
