"""The catalogue of the Imaging Data Commons (IDC): which series there are, under which licence, and where they lie.

The catalogue is the table of every series that the package idc-index-data carries, one version of it for each version
of the IDC. DuckDB reads from its file what a question needs, a million rows in a tenth of a second or two.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from random import Random
from sys import intern
from typing import Any, NamedTuple

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.config.job import IdcSection
from prognosis_dask.errors import Code, JobError, Problem, count, import_extra
from prognosis_dask.objects.address import IDC_BUCKETS, is_address, parse_address
from prognosis_dask.publish import replacing

#: What a source begins with that names a collection, or a patient of one: ``idc:COLLECTION/PATIENT``.
PREFIX = "idc:"
#: Modalities of masks.
MASKS = ("RTSTRUCT", "SEG")
#: The name, among analysis results, of what came with a collection itself.
ORIGINAL = "original"


class IdcSeries(NamedTuple):
    """One series of the catalogue; ``megabytes`` is the size of its objects, ``uuid`` the version of it.

    ``result`` names the analysis that it is a result of, and is empty for what came with the collection.
    """

    collection: str
    result: str
    patient_id: str
    series_uid: str
    modality: str
    doi: str
    licence: str
    bucket: str
    uuid: str
    instances: int
    megabytes: float

    @property
    def address(self) -> str:
        """What the keys of its objects begin with."""
        return f"s3://{self.bucket}/{self.uuid}"

    @property
    def commercial(self) -> bool:
        """Whether its licence allows commercial use."""
        return "-NC" not in self.licence


#: Collection, analysis result, modality, DOI, licence and bucket as one text, of which there are few: of a third of a
#: million rows it takes half the time to fetch.
_MARK = "\x1f"
_SHARED = f" || '{_MARK}' || ".join(
    (
        *("collection_id", "coalesce(analysis_result_id, '')", "Modality", "coalesce(source_DOI, '')"),
        *("coalesce(license_short_name, '')", "aws_bucket"),
    )
)
_COLUMNS = f"{_SHARED}, PatientID, SeriesInstanceUID, crdc_series_uuid, instanceCount, series_size_MB"


@dataclass(frozen=True)
class IdcSelection:
    """What a cohort takes of the IDC: its series, and what is to be said of patients or UIDs that gave none."""

    series: tuple[IdcSeries, ...]
    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        patients = {(one.collection, one.patient_id) for one in self.series}
        sizes: Counter[str] = Counter()
        for one in self.series:
            sizes[one.modality] += one.megabytes  # type: ignore[assignment]
        kinds = Counter(one.modality for one in self.series)
        listed = ", ".join(f"{kinds[name]:,} {name} ({sizes[name] / 1000:,.2f} GB)" for name in sorted(kinds)) or "none"
        lines = [
            f"patients   {len(patients):,}",
            f"series     {len(self.series):,}: {listed}",
            f"size       {sum(sizes.values()) / 1000:,.2f} GB, of which a run fetches the slices around each region",
            *(f"source     {source}" for source in sources_of(self.series)),
        ]
        codes = Counter(str(problem.code) for problem in self.problems)
        return "\n".join([*lines, *(f"problems   {number:,} {code}" for code, number in codes.items())])


def sources_of(series: Iterable[IdcSeries]) -> list[str]:
    """A line on each collection and analysis result: series, licence, DOI; a licence against commercial use is said.

    >>> one = IdcSeries("rider", "", "R1", "1.2", "CT", "10.7937/x", "CC BY-NC 3.0", "idc-open-data-cr", "6e0f", 9, 5.0)
    >>> sources_of([one])
    ['rider: 1 series, CC BY-NC 3.0 (no commercial use), doi.org/10.7937/x']
    """
    numbers = Counter((one.collection, one.result, one.licence, one.commercial, one.doi) for one in series)
    return [
        f"{collection}{f', {result}' if result else ''}: {number:,} series, {licence or 'no licence named'}"
        f"{'' if commercial else ' (no commercial use)'}{f', doi.org/{doi}' if doi else ''}"
        for (collection, result, licence, commercial, doi), number in sorted(numbers.items())
    ]


def is_collection(source: str) -> bool:
    """Whether a source names a collection of the IDC.

    >>> is_collection("idc:nsclc_radiomics/LUNG1-002"), is_collection("s3://bucket")
    (True, False)
    """
    return source.lower().startswith(PREFIX)


def select_series(
    collections: Sequence[str],
    uids: Sequence[str],
    wanted: IdcSection,
    modalities: Sequence[str],
    *,
    automatic: bool = False,
    alone: bool = True,
) -> IdcSelection:
    """The series of some collections and those with some UIDs, as far as they are wanted.

    Parameters
    ----------
    collections
        As ``idc:COLLECTION`` or ``idc:COLLECTION/PATIENT``.
    uids
        SeriesInstanceUIDs, or ``crdc_series_uuid``.
    wanted
        The filters.
    modalities
        Modalities of images, where the filters name none.
    automatic
        Patients without a mask are wanted too.
    alone
        There is no other source, from which images or masks may come.

    Raises
    ------
    JobError, MissingExtraError
        When there is no such collection or patient; the nearest names are told.
    """
    found = {one.uuid: one for name in collections for one in _collection(name, wanted, modalities)}
    listed = with_uids(uids)
    known = {name for one in listed for name in (one.series_uid, one.uuid)}
    version = idc_version()
    problems = [
        Problem(Code.OBJECT_MISSING, f"no such series in version {version} of the Imaging Data Commons", where=uid)
        for uid in uids
        if uid not in known
    ]
    found |= {one.uuid: one for one in listed if _is_wanted(one, wanted)}
    if alone and found and not any(one.modality not in MASKS for one in found.values()):
        raise JobError(
            f"of the {count(len(found), 'mask')} that are wanted no image is: {'; '.join(sources_of(found.values()))}. "
            "Masks and images of a collection may have different licences and modalities; widen the choice"
        )
    kept, without = _with_masks(list(found.values()), wanted, automatic=automatic or not collections or not alone)
    return IdcSelection(tuple(kept), (*problems, *without))


def idc_version() -> int:
    """The version of the IDC that the installed catalogue is of."""
    [(version,)] = _query("SELECT max(series_revised_idc_version) FROM catalogue", [])
    return int(version)


def with_uids(uids: Sequence[str]) -> list[IdcSeries]:
    """The series with these SeriesInstanceUIDs or ``crdc_series_uuid``, in the order of patients and series."""
    if not uids:
        return []
    condition = "SeriesInstanceUID IN (SELECT unnest(?)) OR crdc_series_uuid IN (SELECT unnest(?))"
    return _series(condition, [list(uids), list(uids)])


def _collection(source: str, wanted: IdcSection, modalities: Sequence[str]) -> list[IdcSeries]:
    name, _, patient = source[len(PREFIX) :].strip("/").partition("/")
    collection = _known_collection(name)
    conditions, values = ["collection_id = ?"], [collection]
    kinds = wanted.modalities or (*modalities, *MASKS)
    for column, chosen in (("PatientID", wanted.patients or ((patient,) if patient else ())), ("Modality", kinds)):
        if chosen:
            conditions.append(f"{column} IN (SELECT unnest(?))")
            values.append(list(chosen))  # type: ignore[arg-type]
    if wanted.body_part:  # headers of masks rarely name one
        conditions.append("(Modality IN ('RTSTRUCT', 'SEG') OR upper(BodyPartExamined) = upper(?))")
        values.append(wanted.body_part)
    found = _series(" AND ".join(conditions), values)
    if not found:
        raise JobError(_nothing(collection, patient, wanted, kinds))
    return [one for one in found if _is_wanted(one, wanted)]


def _is_wanted(one: IdcSeries, wanted: IdcSection) -> bool:
    if wanted.licence == "commercial" and not one.commercial:
        return False
    if wanted.analysis_results and one.modality in MASKS:
        return (one.result or ORIGINAL) in wanted.analysis_results
    return True


def _with_masks(
    series: Sequence[IdcSeries], wanted: IdcSection, *, automatic: bool
) -> tuple[list[IdcSeries], list[Problem]]:
    """The series of so many patients as are wanted, of those with image and mask; a problem for each of the others."""
    masked = {(one.collection, one.patient_id) for one in series if one.modality in MASKS}
    imaged = {(one.collection, one.patient_id) for one in series if one.modality not in MASKS}
    kept = sorted(masked | imaged if automatic else masked & imaged)
    problems: list[Problem] = []
    if wanted.limit:
        kept = sorted(Random(wanted.seed).sample(kept, min(wanted.limit, len(kept)))) if wanted.seed else kept
        kept = kept[: wanted.limit]
    elif not automatic:
        no_mask = "images in the catalogue, but no mask of those that are wanted"
        no_image = "masks in the catalogue, but no image of those that are wanted"
        problems += [Problem(Code.PATIENT_WITHOUT_MASK, no_mask, name) for _, name in sorted(imaged - masked)]
        problems += [Problem(Code.NO_IMAGES, no_image, name) for _, name in sorted(masked - imaged)]
    chosen = set(kept)
    return [one for one in series if (one.collection, one.patient_id) in chosen], problems


def _known_collection(name: str) -> str:
    """A collection's name as the catalogue has it, also from what TCIA writes (``NSCLC-Radiomics``)."""
    known = [text for (text,) in _query("SELECT DISTINCT collection_id FROM catalogue ORDER BY 1", [])]
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if plain in known:
        return plain
    near = difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else f"it has {len(known)}, for instance nsclc_radiomics"
    raise JobError(f"idc:{name}: the Imaging Data Commons has no such collection; {hint}")


def _nothing(collection: str, patient: str, wanted: IdcSection, kinds: Sequence[str]) -> str:
    """Why a collection gave no series: its nearest patients, or the modalities that it has."""
    if patient and not wanted.patients:
        rows = _query("SELECT DISTINCT PatientID FROM catalogue WHERE collection_id = ?", [collection])
        known = sorted(name for (name,) in rows)
        if patient not in known:
            near = ", ".join(difflib.get_close_matches(patient, known, n=3, cutoff=0.3) or known[:3])
            return f"idc:{collection} has no patient {patient!r}; it has {count(len(known), 'patient')}, such as {near}"
    held = _query(
        "SELECT Modality, count(*) FROM catalogue WHERE collection_id = ? GROUP BY 1 ORDER BY 2 DESC", [collection]
    )
    listed = ", ".join(f"{number:,} {name}" for name, number in held)
    return f"idc:{collection} has nothing of the requested {', '.join(kinds)}; its series: {listed}"


def _series(condition: str, values: Sequence[Any]) -> list[IdcSeries]:
    """The series that a condition holds for, in the order of patients and series."""
    with _answered(f"SELECT {_COLUMNS} FROM catalogue WHERE {condition}", values) as relation:
        shared, patients, uids, uuids, instances, megabytes = relation.fetchnumpy().values()
    parts = {text: tuple(map(intern, text.split(_MARK))) for text in set(shared)}
    collection, result, modality, doi, licence, bucket = (
        map({text: part[number] for text, part in parts.items()}.__getitem__, shared) for number in range(6)
    )
    before, after = (collection, result, map(intern, patients), uids), (modality, doi, licence, bucket, uuids)
    rows = zip(*before, *after, instances.tolist(), megabytes.tolist(), strict=True)
    found = list(map(IdcSeries._make, rows))
    found.sort(key=itemgetter(2, 3))  # most are in this order already
    return found


def _query(sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    with _answered(sql, values) as relation:
        return relation.fetchall()  # type: ignore[no-any-return]


@contextmanager
def _answered(sql: str, values: Sequence[Any]) -> Iterator[Any]:
    duckdb = import_extra("duckdb", extra="cloud", feature="reading the catalogue of the IDC")
    # in few threads and little memory: it may run beside a scheduler
    with duckdb.connect(config={"threads": 2, "memory_limit": "300MB"}) as connection:
        yield connection.execute(sql.replace("FROM catalogue", f"FROM '{_file()}'"), list(values))


@cache
def _file() -> Path:
    package = import_extra("idc_index_data", extra="cloud", feature="the catalogue of the IDC")
    return Path(package.IDC_INDEX_PARQUET_FILEPATH)


#: The file beside ``cases.csv`` that says where images and masks were published: a row for each series of a case.
#: Cohorts from folders and other buckets have no such file.
ORIGINS = "data.csv"
_ORIGIN_COLUMNS = ("case_id", "idc_version", *IdcSeries._fields)


@dataclass(frozen=True)
class Origin:
    """A series that a case uses, and the version of the catalogue that knew it."""

    case_id: str
    idc_version: str
    series: IdcSeries


def write_origins(folder: Path, cases: Sequence[Case]) -> list[IdcSeries]:
    """Write ``data.csv``, where cases use series of the IDC, and return these; remove it where none does.

    Raises
    ------
    OSError, MissingExtraError
        When it cannot be written, or the catalogue is not installed.
    """
    uuids = {case.case_id: _uuids(case) for case in cases}
    known = {one.uuid: one for one in with_uids(sorted({uuid for own in uuids.values() for uuid in own}))}
    if not known:
        (folder / ORIGINS).unlink(missing_ok=True)
        return []
    version = idc_version()
    with replacing(folder / ORIGINS) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_ORIGIN_COLUMNS)
        writer.writerows(
            [case_id, version, *known[uuid]] for case_id, own in uuids.items() for uuid in own if uuid in known
        )
    return list(known.values())


def read_origins(folder: Path, cases: Iterable[Case]) -> list[Origin]:
    """The rows of ``data.csv`` for some cases; none where there is no such file.

    Raises
    ------
    JobError
        When it is another kind of file.
    """
    path, wanted = folder / ORIGINS, {case.case_id for case in cases}
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["case_id"] in wanted]
        return [Origin(row["case_id"], row["idc_version"], _series_in(row)) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise JobError(f"{path} is not a table of series ({error}); `prognosis index` writes one") from error


def cited(origins: Sequence[Origin]) -> dict[str, Any]:
    """What a run's record, its dataset and its report say of the data: IDC version, sources with licences, series.

    Empty where there is nothing to say.
    """
    series = {one.series.uuid: one.series for one in origins}
    if not series:
        return {}
    return {
        "idc_version": ", ".join(sorted({one.idc_version for one in origins})),
        "sources": sources_of(series.values()),
        "dois": sorted({one.doi for one in series.values()} - {""}),
        "licences": sorted({one.licence for one in series.values()} - {""}),
        "commercial_use": all(one.commercial for one in series.values()),
        "crdc_series_uuids": sorted(series),
    }


def _uuids(case: Case) -> list[str]:
    """The UUIDs of the series that a case uses, in the buckets of the IDC."""
    paths = [case.image, *case.sequences.values()]
    roots = [read_listing(path).root if path.endswith(".series.json") else path for path in paths]
    places = [parse_address(path) for path in (*roots, case.mask) if is_address(path)]
    return list(dict.fromkeys(place.key.split("/")[0] for place in places if place.bucket in IDC_BUCKETS))


def _series_in(row: dict[str, str]) -> IdcSeries:
    texts = {name: row[name] for name in IdcSeries._fields}
    return IdcSeries(**{**texts, "instances": int(texts["instances"]), "megabytes": float(texts["megabytes"])})  # type: ignore[arg-type]
