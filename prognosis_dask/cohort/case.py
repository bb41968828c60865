"""The case (patient x image series x region of interest), and the tables ``cases.csv`` and ``problems.csv``."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path

from prognosis_dask.errors import Code, JobError, Problem
from prognosis_dask.objects.address import is_address, join, vouched
from prognosis_dask.objects.files import stat_of
from prognosis_dask.publish import replacing

#: MR sequences; a table's columns of these names hold image files.
SEQUENCES = ("T1", "T1c", "T2", "FLAIR")

#: The ROI's name where there is no mask: the brain stage then searches for the tumour, or a network outlines it.
AUTOMATIC_ROI = "automatic"

#: Columns that ``cases.csv`` must hold; any other column is a covariate.
REQUIRED = ("case_id", "patient_id", "modality", "roi", "image", "mask")

_COLUMNS = tuple(field.name for field in fields(Problem))


@dataclass(frozen=True)
class Case:
    """One row of ``cases.csv``.

    Attributes
    ----------
    case_id
        Stable and readable, unique in the cohort: ``LUNG1-002_CT_GTV-1``.
    patient_id, modality, roi
        As the headers say; ``roi`` is the name of the structure, segment or label (merged ones are joined by ``+``).
    image
        An image file (NIfTI, NRRD, ...; a path, or an address in a bucket), or the ``*.series.json`` listing of a
        DICOM series that :func:`prognosis_dask.cohort.series.write_listing` wrote.
    mask
        An RTSTRUCT or SEG file, or a label map (NIfTI, NRRD, ...). Empty where a stage finds the region: for MR
        of the head without an outlined tumour the brain stage, else the network of the stage ``segment``.
    labels
        ROI numbers (RTSTRUCT), segment numbers (SEG) or label values of the mask; several are merged.
        Empty: every non-zero voxel of a label map. In layers (``.seg.nrrd``) 1000 times the layer is added.
    time_days, event
        The endpoint; None where it is unknown. ``event`` is 1 if observed, 0 if censored, 2 if a competing event was.
    source
        Digest of the input files (identity, size and modification time), taken when the cohort was indexed; in a
        table without it, sizes and modification times when the table was read.
    covariates
        All other columns, as text.
    sequences
        Where several MR sequences make one case: name (:data:`SEQUENCES`) and image of each, ``image`` among them.
    units
        Of the image's values as they are stored, where its headers say: ``HU``, PET's ``BQML``, ``CNTS`` or ``GML``.
    acquisition
        What the image was acquired with (:data:`prognosis_dask.cohort.headers.ACQUISITION`), as far as its headers say;
        columns ``acquired_*``. Never a feature.
    mask_etag
        What the store said of a mask in a bucket; another object in its place is then a problem of the case.
    image_etags
        The same of an image file, and of those of the ``sequences`` by name; empty texts for what is none in a bucket.
        The slices of a series have theirs in its listing.
    stored
        By stage the digest under which a run keeps what the stage makes of the case: what has another one was put there
        by another run. In no table.
    """

    case_id: str
    patient_id: str
    modality: str
    roi: str
    image: str
    mask: str
    labels: tuple[int, ...] = ()
    time_days: float | None = None
    event: int | None = None
    source: str = ""
    covariates: dict[str, str] = field(default_factory=dict, hash=False)
    sequences: dict[str, str] = field(default_factory=dict, hash=False)
    units: str = ""
    acquisition: dict[str, str] = field(default_factory=dict, hash=False)
    mask_etag: str = ""
    image_etags: tuple[str, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def short_hash(self) -> str:
        """Twelve hex digits that identify the case where a patient's name must not appear."""
        return short_hash(self.case_id)

    @property
    def images(self) -> tuple[str, ...]:
        """The image, and then each of the sequences by name."""
        return self.image, *(self.sequences[name] for name in sorted(self.sequences))

    def etag(self, image: str) -> str:
        """What the store said of one of the images; empty where it was not asked."""
        return dict(zip(self.images, self.image_etags, strict=False)).get(image, "")

    @property
    def digest(self) -> str:
        """Digest of what the features depend on: the input files and the chosen labels, not their location."""
        files = [Path(self.image).name, Path(self.mask).name]
        files += [f"{name} {Path(path).name}" for name, path in sorted(self.sequences.items())]
        text = json.dumps([self.case_id, *files, list(self.labels), self.source])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def short_hash(case_id: str) -> str:
    """:attr:`Case.short_hash` from the ``case_id`` alone.

    >>> short_hash("LUNG1-002_CT_GTV-1")
    '90753e4a5b47'
    """
    return hashlib.sha256(case_id.encode()).hexdigest()[:12]


def make_case_id(*parts: str) -> str:
    """Join the parts into an identifier that is safe as a file name.

    >>> make_case_id("LUNG1-002", "CT", "GTV 1/left")
    'LUNG1-002_CT_GTV-1-left'
    """
    return "_".join(re.sub(r"[^A-Za-z0-9.+]+", "-", part).strip("-") or "x" for part in parts)


#: Fields that hold any number of columns.
_OPEN = ("covariates", "sequences", "acquisition", "stored")
#: What the names of columns on the acquisition begin with.
ACQUIRED = "acquired_"


def write_cases(path: Path, cases: Iterable[Case]) -> None:
    """Write ``cases.csv``: the fixed columns, the sequences, what images were acquired with, and the covariates."""
    rows = list(cases)
    fixed = [f.name for f in fields(Case) if f.name not in _OPEN]
    for name in ("mask_etag", "image_etags"):  # columns of cohorts in buckets
        if not any(getattr(case, name) for case in rows):
            fixed.remove(name)
    images = [name for name in SEQUENCES if any(name in case.sequences for case in rows)]
    acquired = list(dict.fromkeys(name for case in rows for name in case.acquisition))
    extra = list(dict.fromkeys(name for case in rows for name in case.covariates))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(fixed + images + [f"{ACQUIRED}{name}" for name in acquired] + extra)
        for case in rows:
            cells = [_cell(getattr(case, name)) for name in fixed]
            cells += [case.sequences.get(name, "") for name in images]
            cells += [case.acquisition.get(name, "") for name in acquired]
            writer.writerow(cells + [case.covariates.get(name, "") for name in extra])


def read_cases(path: Path | str) -> list[Case]:
    r"""Read ``cases.csv``. Relative paths are taken from the table's folder.

    Raises
    ------
    JobError
        When the file is missing or is not such a table, lacks a required column or cell, holds an invalid label, time
        or event, or names a case twice; the message names the line.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     table = Path(folder) / "cases.csv"
    ...     _ = table.write_text("case_id,patient_id,modality,roi,image,mask\n1,P1,CT,GTV,ct.nrrd,gtv.nrrd\n")
    ...     (case,) = read_cases(table)
    >>> case.patient_id, case.roi, Path(case.image).name
    ('P1', 'GTV', 'ct.nrrd')
    """
    path = Path(path)
    if not path.is_file():
        raise JobError(f"no table of cases at {path}; `prognosis index` writes one")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            cases = list(_rows(csv.DictReader(stream, restval=""), path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise JobError(f"{path} is not a CSV file in UTF-8: {error}") from error
    seen: set[str] = set()
    for case in cases:
        if case.case_id in seen:
            raise JobError(f"{path} names the case {case.case_id!r} twice; case_id must be unique")
        seen.add(case.case_id)
    return cases


def _rows(reader: csv.DictReader[str], path: Path) -> Iterator[Case]:
    missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise JobError(f"{path} lacks the columns {missing}; it has {reader.fieldnames}")
    for row in reader:
        try:
            yield _case(row, path.parent)
        except ValueError as error:
            raise JobError(f"{path}, line {reader.line_num}: {error}") from error


def _case(row: dict[str, str], folder: Path) -> Case:
    fixed = {f.name for f in fields(Case) if f.name not in _OPEN} | set(SEQUENCES)
    if None in row:  # csv collects surplus cells under this key
        raise ValueError(f"it has more cells than the {len(row) - 1} columns; quote cells that contain a comma")
    for name in REQUIRED:
        if not row[name] and not (name == "mask" and (row["modality"] == "MR" or row["roi"] == AUTOMATIC_ROI)):
            raise ValueError(f"{name} is empty; every case needs one")
    sequences = {name: join(folder, row[name]) for name in SEQUENCES if row.get(name)}
    case = Case(
        case_id=row["case_id"],
        patient_id=row["patient_id"],
        modality=row["modality"],
        roi=row["roi"],
        image=join(folder, row["image"]),
        mask=join(folder, row["mask"]) if row["mask"] else "",
        labels=tuple(_label(label) for label in row.get("labels", "").split(";") if label),
        time_days=_time_days(row["time_days"]) if row.get("time_days") else None,
        event=_event(row["event"]) if row.get("event") else None,
        units=row.get("units", ""),
        source=row.get("source", ""),
        mask_etag=row.get("mask_etag", ""),
        image_etags=tuple(row["image_etags"].split(";")) if row.get("image_etags") else (),
        covariates={name: value for name, value in row.items() if name not in fixed and not name.startswith(ACQUIRED)},
        acquisition={
            name.removeprefix(ACQUIRED): value for name, value in row.items() if name.startswith(ACQUIRED) and value
        },
        sequences=sequences,
    )
    return case if case.source else _stamped(case, [join(folder, row[name]) for name in ("image", "mask", *sequences)])


def _label(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"labels has {text!r}, expected whole numbers separated by semicolons")
    return int(text)


def _time_days(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"time_days is {text!r}, expected a number of days, or nothing") from error


def _event(text: str) -> int:
    if text.strip() not in ("0", "1", "2"):
        raise ValueError(f"event is {text!r}, expected 1 (observed), 0 (censored), 2 (a competing event), or nothing")
    return int(text)


def _stamped(case: Case, paths: Sequence[str]) -> Case:
    """With a substitute for the digest of files that were never indexed: sizes and modification times, or ETags."""
    looked = {path: _look_at(path) for path in paths}
    etags = tuple(looked[image][1] for image in case.images)
    return replace(
        case,
        source=" ".join(looked[path][0] for path in paths),
        mask_etag=looked[case.mask][1] if case.mask else "",
        image_etags=etags if any(etags) else (),
    )


def _look_at(path: str) -> tuple[str, str]:
    """What tells a file or an object from what was there before, and an object's ETag."""
    if is_address(path):
        stat = stat_of(path)
        return (f"{stat.bytes}-{vouched(path, stat.etag)}", stat.etag) if stat else ("missing", "")
    file = Path(path)
    return (f"{file.stat().st_size}-{file.stat().st_mtime_ns}" if file.is_file() else "missing"), ""


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ";".join(str(item) for item in value)
    return str(value)


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write the whole table, sorted, so that equal runs give equal files. It replaces the old one atomically."""
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows(sorted({astuple(problem) for problem in problems}))


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
        raise JobError(f"{path} is not a table of problems ({error}); `prognosis index` writes one") from error
