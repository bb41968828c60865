"""Where a cohort's images and masks were published: the file ``data.csv`` beside ``cases.csv``, ready to cite.

It has a row for each series of the Imaging Data Commons that a case uses, found by the series' UUID in its address.
Cohorts from folders and other buckets have no such file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.idc import IdcSeries, idc_version, sources_of, with_uids
from prognosis_dask.cohort.listing import read_listing
from prognosis_dask.errors import JobError
from prognosis_dask.objects.address import IDC_BUCKETS, is_address, parse_address
from prognosis_dask.publish import replacing

#: The name of the file.
NAME = "data.csv"
_COLUMNS = ("case_id", "idc_version", *IdcSeries._fields)


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
        (folder / NAME).unlink(missing_ok=True)
        return []
    version = idc_version()
    with replacing(folder / NAME) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
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
    path, wanted = folder / NAME, {case.case_id for case in cases}
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["case_id"] in wanted]
        return [Origin(row["case_id"], row["idc_version"], _series(row)) for row in rows]
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


def _series(row: dict[str, str]) -> IdcSeries:
    texts = {name: row[name] for name in IdcSeries._fields}
    return IdcSeries(**{**texts, "instances": int(texts["instances"]), "megabytes": float(texts["megabytes"])})  # type: ignore[arg-type]
