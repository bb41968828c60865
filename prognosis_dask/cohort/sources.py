"""What may be named as a source of a cohort: folders, files, tables, addresses, collections of the IDC, manifests.

A table is pyradiomics' batch table: ``Image``, ``Mask``, optional ``Label`` and ``Label_channel``; other columns are
covariates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from prognosis_dask.cohort.clinical import key, read_rows
from prognosis_dask.cohort.headers import FileStamp, stamp
from prognosis_dask.cohort.idc import IdcSelection, is_collection, select_series
from prognosis_dask.cohort.names import Volume, modality_of
from prognosis_dask.config.job import IdcSection
from prognosis_dask.errors import Code, JobError, Problem
from prognosis_dask.objects.address import is_address, parse_address
from prognosis_dask.volumes.labels import LAYER

_TABLES = (".csv", ".csv.gz", ".tsv", ".xlsx")
#: A manifest of TCIA's downloader, one of the IDC's portal, and a plain list of UIDs.
_MANIFESTS = (".tcia", ".s5cmd", ".txt")
#: What a list's column of series is called, as :func:`key` has it.
_COLUMNS = ("seriesinstanceuid", "seriesuid", "crdcseriesuuid")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_UID = re.compile(r"[0-2](\.[0-9]+){4,}")
_UUID = re.compile(r"s3://[\w-]+/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/")


@dataclass(frozen=True)
class Sources:
    """Sources, each as what it is.

    Attributes
    ----------
    crawled
        Folders, files and addresses of which all is read.
    tables
        Tables in pyradiomics' form.
    idc
        What is taken of the IDC.
    """

    crawled: tuple[Path | str, ...]
    tables: tuple[Path, ...]
    idc: IdcSelection


def sort_sources(
    sources: Sequence[Path | str], wanted: IdcSection, modalities: Sequence[str], *, automatic: bool = False
) -> Sources:
    """What the sources are; the catalogue of the IDC is asked where one names a collection or series.

    Raises
    ------
    JobError, MissingExtraError
        When a source is not there; when the IDC has no such collection, or the extra ``cloud`` is not installed.
    """
    crawled: list[Path | str] = []
    tables: list[Path] = []
    collections: list[str] = []
    uids: list[str] = []
    for source in map(str, sources):
        if is_collection(source):
            collections.append(source)
        elif is_address(source):
            crawled.append(str(parse_address(source)))
        elif listed := listed_series(Path(source)):
            uids += listed
        elif is_table(Path(source)):
            tables.append(Path(source))
        else:
            crawled.append(Path(source))
    idc = IdcSelection(())
    if collections or uids:
        alone = not (crawled or tables)
        idc = select_series(
            collections, list(dict.fromkeys(uids)), wanted, modalities, automatic=automatic, alone=alone
        )
    return Sources((*crawled, *(one.address for one in idc.series)), tuple(tables), idc)


def expect_source(source: str, key: str) -> None:
    """Refuse a source that cannot be one; a bucket is not asked yet.

    Raises
    ------
    JobError
        When there is no such file or folder.
    """
    if is_address(source):
        parse_address(source)
    elif "://" in source or source.startswith(("s3:", "gs:")):
        raise JobError(
            f"{key}: {source!r} is no source; expected a folder, s3://BUCKET/PREFIX, gs://... or idc:COLLECTION"
        )
    elif not is_collection(source) and not Path(source).exists():
        kind = "file" if source.lower().endswith((*_MANIFESTS, *_TABLES)) else "folder"
        raise JobError(f"{key}: no {kind} at {source}{_near(Path(source))}")


def _near(path: Path) -> str:
    """The entry of the same folder that is spelt most like it, if any."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    found = get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.parent / found[0]}?" if found else ""


def names_series(source: str) -> bool:
    """Whether a source names series of the IDC: a collection, a manifest or list by its file name, a table of UIDs."""
    if is_collection(source) or source.lower().endswith(_MANIFESTS):
        return True
    return not is_address(source) and is_table(Path(source)) and bool(listed_series(Path(source)))


def is_table(source: Path) -> bool:
    """Whether it is a table in pyradiomics' form, by its name."""
    return source.name.lower().endswith(_TABLES) and source.is_file()


def listed_series(path: Path) -> list[str]:
    """The series that a manifest or a list names, by SeriesInstanceUID or ``crdc_series_uuid``; else none.

    A list has one on each line, quoted or not, or is a table with a column of this name.

    Raises
    ------
    JobError
        When a manifest or a list names none, or a list something else too.
    """
    if is_table(path):
        rows = read_rows(path)
        columns = {key(name): name for name in (rows[0] if rows else {})}
        column = next((columns[name] for name in _COLUMNS if name in columns), None)
        if column is None or {"image", "mask"} <= columns.keys():  # of files that are here, by pyradiomics' table
            return []
        if not (listed := [row[column].strip() for row in rows if row[column].strip()]):
            raise JobError(f"{path}: its column {column!r} is empty; expected a SeriesInstanceUID in each row")
        return listed
    if not path.name.lower().endswith(_MANIFESTS) or not path.is_file():
        return []
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in _UTF_16 else "utf-8-sig", errors="replace")
    lines = [line.strip().strip("\"',;").strip() for line in text.splitlines()]
    if path.suffix.lower() == ".s5cmd":
        found = [match[1] for line in lines if (match := _UUID.search(line))]
    else:
        found = [line for line in lines if _UID.fullmatch(line)]
    others = [line for line in lines if line and not line.startswith("#") and line not in found]
    if path.suffix.lower() == ".txt":
        if found and lines[0] in others and key(lines[0]) in _COLUMNS:  # a heading
            others.remove(lines[0])
        if found and others:
            raise JobError(f"{path}: {others[0]!r} is no SeriesInstanceUID; a list has one on each line")
    if not found:
        raise JobError(f"{path} names no series; expected a SeriesInstanceUID, or a line of s5cmd, for each")
    return found


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
