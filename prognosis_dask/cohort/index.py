"""Index a cohort: from folders to ``cases.csv``, ``problems.csv`` and the listings of the series."""

from __future__ import annotations

import builtins
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from prognosis_dask.arrays import Map
from prognosis_dask.cohort.case import AUTOMATIC_ROI, SEQUENCES, Case, make_case_id, write_cases, write_problems
from prognosis_dask.cohort.clinical import (
    ClinicalTable,
    clinical_table,
    endpoint,
    find_endpoint,
    learn_codes,
    match_in_part,
    match_spelt_alike,
    patient_key,
    same_patient,
)
from prognosis_dask.cohort.collections import Rules, resolve
from prognosis_dask.cohort.crawl import crawl
from prognosis_dask.cohort.gather import Gathered, Image, gather
from prognosis_dask.cohort.headers import FileStamp, Header, MaskHeader, OtherFile, VolumeFile
from prognosis_dask.cohort.idc import sources_of, write_origins
from prognosis_dask.cohort.linking import left_out
from prognosis_dask.cohort.rois import Selection, select
from prognosis_dask.cohort.sequences import doubts, drawn_on, name_sequences, repeated, sessions, whole_sessions
from prognosis_dask.cohort.series import write_listing
from prognosis_dask.cohort.sources import read_tables, sort_sources
from prognosis_dask.cohort.summary import IndexSummary, endpoint_notes, foresee
from prognosis_dask.config.job import CohortSection, IdcSection, ImageSection
from prognosis_dask.errors import CaseError, Code, Problem, count
from prognosis_dask.publish import cannot_write
from prognosis_dask.tables.values import glioma_levels, merged_note, read_level

_FIXED = {field.name for field in fields(Case)} | set(SEQUENCES)
#: Per image, the MR sequences that were taken with it.
Sessions = dict[str, dict[str, Image]]


@dataclass(frozen=True)
class _Draft:
    """A case without an identifier."""

    image: Image
    selection: Selection

    @property
    def readable(self) -> str:
        return make_case_id(self.image.patient_id, self.image.modality, self.selection.name)

    @property
    def suffix(self) -> str:
        """Distinguishes it from others of the same name. Depends on this case alone, not on what else is indexed."""
        return _short(self.image.uid, self.selection.uid, str(self.selection.labels))

    @property
    def by_path(self) -> str:
        """The same where series or files of equal identity lie in several places."""
        return _short(self.image.key, self.selection.mask.path, str(self.selection.labels))


def index_cohort(
    sources: Sequence[Path | str],
    out: Path,
    rules: CohortSection,
    map: Map = builtins.map,
    *,
    image: ImageSection | None = None,
    idc: IdcSection | None = None,
    survival: bool = True,
) -> IndexSummary:
    """Find the cases of a cohort and write ``cases.csv``, ``problems.csv`` and ``series/*.series.json`` under ``out``.

    Parameters
    ----------
    sources
        Folders of any layout, single files, and tables in pyradiomics' form (``*.csv`` with ``Image`` and ``Mask``); as
        text also ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``, ``idc:COLLECTION`` and ``idc:COLLECTION/PATIENT``;
        manifests (``*.tcia``, ``*.s5cmd``) and plain lists of SeriesInstanceUIDs (``*.txt``), of series in the IDC.
    out
        Where to write; made when it does not exist.
    rules
        The job's cohort section: collection preset, its overrides and the clinical table. Its own ``sources`` are
        not looked at.
    map
        The built-in ``map``, or one that spreads the reading of headers, the slow part, over a cluster.
    image
        How the run will read the images (else by its defaults): what it will refuse, or warn of, by their headers alone
        is reported here.
    idc
        What is taken of collections of the Imaging Data Commons (else all).
    survival
        Whether a case without a survival time is a problem; of a study that predicts a class it is none.

    Raises
    ------
    JobError, StoreError, BucketError
        When a source or the clinical table does not exist or cannot be used, the rules name something unknown, or
        ``out`` cannot be made.
        What is wrong with single files, patients or masks is listed in ``problems.csv`` and raises nothing.
    """
    resolved = resolve(rules)
    table = clinical_table(rules, resolved.collection)
    sorted_out = sort_sources(
        sources, idc or IdcSection(), resolved.modalities, automatic=resolved.automatic or resolved.unmasked
    )
    _make(out)
    rows, row_problems = read_tables(sorted_out.tables)
    row_problems += sorted_out.idc.problems
    headers = crawl(sorted_out.crawled, map, leave_out=out)
    gathered = gather(headers, rows, resolved)
    name_sequences(gathered.images.values())
    drafts, problems = _choose(gathered, resolved)
    together: Sessions = {}
    if resolved.sequences:
        drafts, together = _one_per_mask(drafts), sessions(gathered.images.values())
    if resolved.collection.by_sequence:
        drafts = _by_sequence(drafts)
    if resolved.sequences or resolved.collection.by_sequence:
        used = {image.key for draft in drafts for image in (draft.image, *_beside(draft, together).values())}
        problems += [*doubts(gathered.images.values()), *repeated(gathered.images.values(), used)]
    names = _identifiers(drafts)
    cases = _cases(drafts, names, together, out.absolute() / "series")
    for draft, name in zip(drafts, names, strict=True):
        foreseen = foresee(draft.image, draft.selection, image or ImageSection())
        problems += [problem.of(patient_id=draft.image.patient_id, case_id=name) for problem in foreseen]
    if table is not None:
        patients = {patient_key(image.patient_id) for image in gathered.images.values()}
        table = leveled(spelt_alike(table, patients, resolved.collection.id_part), resolved.collection.levels)
        row_problems += [_as_warning(note, rules.clinical) for note in table.notes]
    cases, clinical_problems = _join(cases, gathered.images.values(), table, resolved)
    problems = [*gathered.problems, *row_problems, *problems, *clinical_problems]
    if not survival:
        problems = [problem for problem in problems if problem.code is not Code.NO_ENDPOINT]
    write_cases(out / "cases.csv", cases)
    write_problems(out / "problems.csv", problems)
    origins = write_origins(out, cases)
    summary = _summary(out, headers, gathered, cases, set(problems), resolved)
    told = endpoint_notes(cases, problems, table, resolved.collection) if survival else []
    notes = [*(table.notes if table else ()), *told]
    return replace(summary, notes=notes, origins=tuple(sources_of(origins)))


def _make(out: Path) -> None:
    try:
        (out / "series").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error


def _short(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:6]


def _choose(gathered: Gathered, rules: Rules) -> tuple[list[_Draft], list[Problem]]:
    """Apply exclusions and ROI rules to every image."""
    excluded = {patient_key(name): reason for name, reason in rules.exclude.items()}
    drafts: list[_Draft] = []
    problems: list[Problem] = []
    reported = {patient_key(problem.patient_id) for problem in gathered.problems if problem.code in _MASK_PROBLEMS}
    masked: set[str] = set()
    for image in sorted(gathered.images.values(), key=lambda image: (image.patient_id, image.modality, image.key)):
        patient = patient_key(image.patient_id)
        if patient in excluded:
            problems.append(Problem(Code.EXCLUDED, excluded[patient], patient_id=image.patient_id))
        elif image.candidates:
            masked.add(patient)
            selections, faults = _select(image, rules)
            drafts += [_Draft(image, selection) for selection in selections]
            problems += faults
    for patient, images in _by_patient(gathered.images.values()).items():
        if patient not in masked | reported | excluded.keys():
            found = _automatic(images) if rules.automatic else images if rules.unmasked else []
            drafts += [_Draft(image, _NO_MASK) for image in found]
            if found:
                continue
            held = sorted(Counter({image.series: image.modality for image in images}.values()).items())
            reason = f"images ({', '.join(f'{count} {modality}' for modality, count in held)}), but no mask on any"
            problems.append(Problem(Code.PATIENT_WITHOUT_MASK, reason, patient_id=images[0].patient_id))
    return drafts, problems


_MASK_PROBLEMS = (Code.MASK_WITHOUT_SERIES, Code.SERIES_AMBIGUOUS, Code.ROI_WITHOUT_CONTOUR, Code.MASK_EMPTY)


#: What is chosen where there is nothing to choose from: the stage that outlines a region says the rest.
_NO_MASK = Selection(FileStamp("", 0, 0), AUTOMATIC_ROI, "", AUTOMATIC_ROI, ())


def _automatic(images: Sequence[Image]) -> list[Image]:
    """Of each session the sequence on which a tumour would be outlined."""
    found = (together for together in whole_sessions(images) if not {"T2", "FLAIR"}.isdisjoint(together))
    return [drawn_on("", list(together.values())) for together in found]


def _select(image: Image, rules: Rules) -> tuple[list[Selection], list[Problem]]:
    try:
        selections, problems = select(image.candidates, rules.roi, rules.policy)
    except CaseError as error:
        selections, problems = [], [error.problem]
    where = image.candidates[0].mask.path
    problems = [*problems, *_sparse(image, selections)]
    return selections, [problem.of(patient_id=image.patient_id, where=where) for problem in problems]


def _sparse(image: Image, selections: Sequence[Selection]) -> list[Problem]:
    """A warning for each structure outlined on thicker slices than its image has: the run will refuse it."""
    found: list[Problem] = []
    if image.listing is None:
        return found
    for chosen in selections:
        for candidate in image.candidates:
            if candidate.mask != chosen.mask or not set(candidate.labels) <= set(chosen.labels):
                continue
            seen = left_out(candidate.structure.points, image.listing)
            if seen:
                reason = f"{chosen.name!r} is drawn on {seen}; see image.fill_gaps and image.resample_mask"
                found.append(Problem(Code.MASK_GAPS, reason, where=chosen.mask.path, severity="warning"))
    return found


def _by_patient(images: Iterable[Image]) -> dict[str, list[Image]]:
    found: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        found[patient_key(image.patient_id)].append(image)
    return found


def _one_per_mask(drafts: Sequence[_Draft]) -> list[_Draft]:
    """Of the drafts that share a mask, the one on the sequence that the mask was drawn on."""
    groups: dict[tuple[str, tuple[int, ...]], list[_Draft]] = defaultdict(list)
    for draft in drafts:
        groups[draft.selection.mask.path or draft.image.key, draft.selection.labels].append(draft)
    kept = []
    for (mask, _), group in groups.items():
        image = drawn_on(mask, [draft.image for draft in group])
        kept += [draft for draft in group if draft.image is image]
    return kept


def _by_sequence(drafts: Sequence[_Draft]) -> list[_Draft]:
    """The drafts on a known sequence, named after it; of two files of one sequence that with the shorter name."""
    kept: dict[tuple[str, str, str], _Draft] = {}
    for draft in sorted(drafts, key=lambda draft: len(Path(draft.image.path).name)):
        sequence, chosen = draft.image.sequence, draft.selection
        if sequence:
            named = replace(draft, selection=replace(chosen, name=f"{chosen.name} {sequence}"))
            kept.setdefault((chosen.mask.path, chosen.name, sequence), named)
    return list(kept.values())


def _cases(drafts: Sequence[_Draft], names: Sequence[str], together: Sessions, folder: Path) -> list[Case]:
    """Name the cases, and write the listings of their series."""
    images = {image.key: image for draft in drafts for image in (draft.image, *_beside(draft, together).values())}
    listed = {
        key: str(write_listing(folder, image.listing)) for key, image in images.items() if image.listing is not None
    }
    cases = []
    for draft, case_id in zip(drafts, names, strict=True):
        image, chosen, beside = draft.image, draft.selection, _beside(draft, together)
        etags = tuple(one.file.etag if one.file else "" for one in (image, *(beside[name] for name in sorted(beside))))
        source = f"{image.digest} {chosen.mask.identity}"
        source += f" {chosen.names_from.sha256}" if chosen.names_from is not None else ""
        source += "".join(f" {name} {other.digest}" for name, other in beside.items() if other is not image)
        cases.append(
            Case(
                case_id=case_id,
                patient_id=image.patient_id,
                modality=image.modality,
                roi=chosen.name,
                image=listed.get(image.key, image.path),
                mask=chosen.mask.path,
                mask_etag=chosen.mask.etag,
                image_etags=etags if any(etags) else (),
                labels=chosen.labels,
                source=hashlib.sha256(source.encode()).hexdigest()[:16],
                units=image.listing.units if image.listing is not None else "",
                covariates=chosen.covariates,
                acquisition=image.listing.acquisition if image.listing is not None else {},
                sequences={name: listed.get(other.key, other.path) for name, other in beside.items()},
            )
        )
    return sorted(cases, key=lambda case: case.case_id)


def _beside(draft: _Draft, together: Sessions) -> dict[str, Image]:
    return together.get(draft.image.key, {})


def _identifiers(drafts: Sequence[_Draft]) -> list[str]:
    """Readable if unique, else all that share a name get a suffix."""

    def taken(names: list[str]) -> Counter[str]:
        return Counter(name.casefold() for name in names)  # without case: identifiers become file names

    readable = [draft.readable for draft in drafts]
    often = taken(readable)
    longer = [
        f"{name}_{draft.suffix}" if often[name.casefold()] > 1 else name
        for name, draft in zip(readable, drafts, strict=True)
    ]
    often = taken(longer)
    return [
        f"{name}-{draft.by_path}" if often[name.casefold()] > 1 else name
        for name, draft in zip(longer, drafts, strict=True)
    ]


def _join(
    cases: Sequence[Case], images: Iterable[Image], table: ClinicalTable | None, rules: Rules
) -> tuple[list[Case], list[Problem]]:
    """Join each case with its patient's clinical row; list patients without a row, an endpoint or images."""
    if table is None:
        return _own_endpoints(cases, rules)
    problems = list(table.problems)
    rowless = no_row(cases, table)
    joined_cases = []
    for case in cases:
        row = table.rows.get(patient_key(case.patient_id))
        if row is None:
            problems.append(Problem(Code.NO_CLINICAL_ROW, rowless, case.patient_id, case.case_id))
            joined_cases.append(case)
            continue
        if table.has_endpoint and row.time_days is None:
            problems.append(Problem(Code.NO_ENDPOINT, row.fault, case.patient_id, case.case_id))
        covariates = _free_names({**case.covariates, **row.covariates})
        joined_cases.append(replace(case, time_days=row.time_days, event=row.event, covariates=covariates))
    imaged = {patient_key(image.patient_id) for image in images}
    for key, row in table.rows.items():
        if key not in imaged:
            reason = "in the clinical table, but no image of a wanted modality was found"
            problems.append(Problem(Code.NO_IMAGES, reason, patient_id=row.patient_id))
    return joined_cases, problems


def _as_warning(note: str, table: str) -> Problem:
    return Problem(Code.CLINICAL_TABLE, note, where=table, severity="warning")


def _own_endpoints(cases: Sequence[Case], rules: Rules) -> tuple[list[Case], list[Problem]]:
    """Take the endpoint of cases from a table of cases from the columns that the collection names."""
    columns = find_endpoint(dict.fromkeys(name for case in cases for name in case.covariates), rules.collection)
    said = [case.covariates.get(columns[1], "") for case in cases] if columns[1] else []
    codes = learn_codes(said, columns[1], rules.collection)
    joined, problems = [], []
    for case in cases:
        own = columns if set(columns) <= case.covariates.keys() else (None, None)
        time, event, fault = endpoint(case.covariates, own, rules.collection, codes)
        kept = {name: value for name, value in case.covariates.items() if name not in columns}
        joined.append(replace(case, time_days=time, event=event, covariates=_free_names(kept)))
        if fault:
            problems.append(Problem(Code.NO_ENDPOINT, fault, patient_id=case.patient_id, case_id=case.case_id))
    return joined, problems


def _free_names(covariates: dict[str, str]) -> dict[str, str]:
    """Covariates, renamed if ``cases.csv`` has a column of that name."""
    return {f"clinical_{name}" if name in _FIXED else name: value for name, value in covariates.items()}


def _summary(
    out: Path,
    headers: Sequence[Header],
    gathered: Gathered,
    cases: Sequence[Case],
    problems: set[Problem],
    rules: Rules,
) -> IndexSummary:
    patients = _by_patient(gathered.images.values())
    decided = {patient_key(name) for name in rules.exclude}
    open_cautions = patients.keys() & {patient_key(name) for name in rules.collection.cautions} - decided
    masks = Counter(header.kind for header in headers if isinstance(header, MaskHeader))
    label_maps = {header.file.path for header in headers if isinstance(header, VolumeFile) and header.is_mask}
    label_maps |= {c.mask.path for i in gathered.images.values() for c in i.candidates if c.kind == "label map"}
    return IndexSummary(
        out=str(out),
        files=len(headers),
        other_files=Counter(header.kind or "not DICOM" for header in headers if isinstance(header, OtherFile)),
        patients=len(patients),
        series=Counter({image.series: image.modality for image in gathered.images.values()}.values()),
        masks=+(masks + Counter({"label map": len(label_maps)})),
        rois=Counter(case.roi for case in cases),
        cases=len(cases),
        with_endpoint=sum(case.event is not None for case in cases),
        patients_with_endpoint=len({case.patient_id for case in cases if case.event is not None}),
        events=len({case.patient_id for case in cases if case.event == 1}),
        by_geometry=gathered.by_geometry,
        problems=_codes(problems, "problem"),
        warnings=_codes(problems, "warning"),
        cautions={n: why for n, why in rules.collection.cautions.items() if patient_key(n) in open_cautions},
    )


def _codes(problems: Iterable[Problem], severity: str) -> Counter[str]:
    return Counter(str(problem.code) for problem in problems if problem.severity == severity)


# The clinical table as the images and the models spell it: patients' IDs, and the values of a column.


def spelt_alike(table: ClinicalTable, patients: Iterable[str], id_part: str) -> ClinicalTable:
    """The table under the images' IDs where these differ in zeros, in separators, or in what is no ``id_part``."""
    known = set(patients)
    other, why = match_spelt_alike(table.rows, known), "in leading zeros or separators"
    if not other and id_part:
        alone, without = table.rows.keys() - known, known - table.rows.keys()
        other, why = match_in_part(alone, without, partial(_part_of, id_part)), "in spelling"
    if not other:
        return table
    one = next(iter(other))
    note = f"{count(len(other), 'patient')} joined although they differ {why}: {same_patient(one, other[one])}."
    rows = {other.get(key, key): row for key, row in table.rows.items()}
    return replace(table, rows=rows, notes=(*table.notes, note))


def no_row(cases: Sequence[Case], table: ClinicalTable) -> str:
    """Why a case has no row; if no case has one, with examples of both kinds of patient ID."""
    reason = "the clinical table has no row for this patient"
    if not table.rows or any(patient_key(case.patient_id) in table.rows for case in cases):
        return reason
    named = next(iter(table.rows.values())).patient_id
    return (
        f"{reason}, nor for any other with images; its first is {named!r}: "
        "are its IDs written like those of the images? cohort.id_column names another column"
    )


def _part_of(pattern: str, name: str) -> str | None:
    found = re.fullmatch(pattern, name)
    return None if found is None else "".join(found.groups())


def leveled(table: ClinicalTable, columns: Iterable[str]) -> ClinicalTable:
    """The table with the spellings of a column's values read as one where they mean one; counted in a note."""
    notes = list(table.notes)
    rows = dict(table.rows)
    for column in columns:
        seen: dict[str, set[str]] = defaultdict(set)
        for key, row in rows.items():
            if text := row.covariates.get(column, ""):
                value = read_level(glioma_levels(column), text)
                seen[value].add(text)
                rows[key] = replace(row, covariates={**row.covariates, column: value})
        notes += filter(None, [merged_note(column, seen)])
    return replace(table, rows=rows, notes=tuple(notes))
