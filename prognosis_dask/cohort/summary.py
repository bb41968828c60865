"""The summary of an index on one screen, and the problems that a run will find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.clinical import ClinicalTable, patient_key
from prognosis_dask.cohort.collections import Collection
from prognosis_dask.cohort.gather import Image
from prognosis_dask.cohort.headers import Point
from prognosis_dask.cohort.rois import Selection
from prognosis_dask.cohort.stack import usable_runs
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import CaseError, Code, JobError, Problem, collected_warnings, count

#: Codes of problems that the headers reveal at indexing; a run checks them again with its own settings.
FORESEEN = (
    Code.PET_UNITS,
    Code.IMAGE_UNITS,
    Code.SERIES_TOO_SHORT,
    Code.SERIES_MIXED,
    Code.SLICE_DUPLICATE,
    Code.SLICE_GAP,
    Code.GANTRY_TILT,
)


@dataclass(frozen=True)
class IndexSummary:
    """The result of an index in counts; ``str()`` gives the text for the terminal."""

    out: str
    files: int
    other_files: Counter[str]
    patients: int
    series: Counter[str]
    masks: Counter[str]
    rois: Counter[str]
    cases: int
    with_endpoint: int
    patients_with_endpoint: int
    events: int
    by_geometry: int
    problems: Counter[str]
    cautions: Mapping[str, str] = field(default_factory=dict)
    warnings: Counter[str] = field(default_factory=Counter)
    notes: Sequence[str] = ()
    origins: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [
            f"files      {self.files:,}{_unused(self.other_files)}",
            f"patients   {self.patients:,}",
            f"images     {_counts(self.series)}",
            f"masks      {_counts(self.masks)}" + (f"; {self.by_geometry} by geometry" if self.by_geometry else ""),
            f"ROIs       {_counts(self.rois, most=8)}",
            f"cases      {self.cases:,}; {self._endpoints()}",
            f"problems   {sum(self.problems.values()):,}",
        ]
        lines += [f"  {count:>7,}  {code}" for code, count in sorted(self.problems.items(), key=_often)]
        if self.warnings:
            lines.append(f"warnings   {sum(self.warnings.values()):,} on what is used all the same")
            lines += [f"  {count:>7,}  {code}" for code, count in sorted(self.warnings.items(), key=_often)]
        lines += [f"source     {origin}" for origin in self.origins]
        lines += [f"clinical   {note}" for note in self.notes]
        lines += [f"caution    {patient}: {reason}" for patient, reason in sorted(self.cautions.items())]
        return "\n".join([*lines, f"written to {self.out}"])

    def _endpoints(self) -> str:
        if not self.with_endpoint:  # as in studies of a class
            return "none with time and event"
        endpoints = f"{self.with_endpoint:,} with time and event"
        if self.with_endpoint > self.patients_with_endpoint:  # several cases of a patient are one event
            patients = count(self.patients_with_endpoint, "patient")
            return f"{endpoints}, of {patients}, {self.events:,} of whom had the event"
        return f"{endpoints}, {count(self.events, 'event')}"


def _counts(counter: Counter[str], most: int | None = None) -> str:
    listed = ", ".join(f"{count:,} {name}" for name, count in counter.most_common(most))
    rest = len(counter) - most if most is not None else 0
    return (listed or "none") + (f" and {rest} more names" if rest > 0 else "")


def _often(counted: tuple[str, int]) -> tuple[int, str]:
    """The most frequent first, ties by name, so that the same cohort gives the same lines."""
    return -counted[1], counted[0]


def _unused(other: Counter[str]) -> str:
    total = sum(other.values())
    return f"; not used: {total:,} ({_counts(other, most=6)})" if total else ""


def expect_cases(cases: Sequence[Case], problems: Sequence[Problem], where: str, folder: Path) -> None:
    """Refuse a cohort without a case, with what was found in its place; ``folder`` holds its ``problems.csv``.

    Raises
    ------
    JobError
        When there is none.
    """
    if cases:
        return
    found = Counter(problem.code for problem in problems)
    if not found:
        raise JobError(
            f"no images in {where}; expected a folder of DICOM series with RTSTRUCT or SEG, or NIfTI or NRRD pairs, "
            "or one above it"
        )
    codes = ", ".join(f"{often} {code}" for code, often in sorted(found.items()))
    most = min(found, key=lambda code: _often((code, found[code])))
    reason = next(problem.reason for problem in problems if problem.code is most)
    raise JobError(
        f"no case in {where}, but problems: {codes}; {folder / 'problems.csv'} says of each what to do. "
        f"Most often: {reason}"
    )


def endpoint_notes(
    cases: Sequence[Case], problems: Iterable[Problem], table: ClinicalTable | None, collection: Collection
) -> list[str]:
    """Why cases have no endpoint, for the terminal; each line names the option to set. None of a study without one."""
    if not collection.time_columns or all(case.event is not None for case in cases):
        return []
    joined = table is not None and any(patient_key(case.patient_id) in table.rows for case in cases)
    said = []
    for code in (Code.NO_ENDPOINT, *([] if joined else [Code.NO_CLINICAL_ROW])):
        of_code = [problem for problem in problems if problem.code is code]
        said += [f"No endpoint: {problem.reason}" for problem in of_code if not problem.case_id]
        reasons = Counter(problem.reason for problem in of_code if problem.case_id)
        for reason, often in reasons.most_common(1):
            more = f", and {count(len(reasons) - 1, 'other reason')}" if len(reasons) > 1 else ""
            said.append(f"No endpoint of {count(reasons.total(), 'case')}: {reason} ({often:,}{more}).")
    if table is None and not said:
        said.append("No clinical table: --set cohort.clinical=TABLE names one, if there is one.")
    return said


def foresee(image: Image, chosen: Selection, settings: ImageSection) -> list[Problem]:
    """The problems and warnings of a case on a DICOM series; none for an image file, whose header tells too little."""
    if image.listing is None:
        return []
    with collected_warnings() as found:
        try:
            usable_runs(image.listing, settings, (lambda: _planes(image, chosen)) if chosen.mask.path else None)
        except CaseError as error:
            return [*found, error.problem]
    return found


def _planes(image: Image, chosen: Selection) -> list[Point]:
    """A point in each plane of an RTSTRUCT's chosen ROIs; none for other masks, whose planes may be empty."""
    return [
        point
        for candidate in image.candidates
        if candidate.mask.path == chosen.mask.path and candidate.kind == "RTSTRUCT"
        if not set(candidate.labels).isdisjoint(chosen.labels)
        for point in candidate.structure.points
    ]
