"""From single instances to image series."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

from prognosis_dask.cohort.headers import ImageHeader
from prognosis_dask.cohort.listing import SeriesListing, SliceFile
from prognosis_dask.cohort.pet import suv_of
from prognosis_dask.cohort.planes import dot, most_common_orientation, slice_normal
from prognosis_dask.cohort.split import split_series
from prognosis_dask.errors import CaseError, Code, Problem


def group_series(headers: Iterable[ImageHeader]) -> tuple[list[SeriesListing], list[Problem]]:
    """Group instances by SeriesInstanceUID, each once, in order along the slice normal.

    Returns the listings of the usable series, several where a series holds several stacks
    (:func:`~prognosis_dask.cohort.split.split_series`), and the problems: instances that lie on the disk twice, and
    series whose images have no place in the patient.
    """
    groups: dict[str, list[ImageHeader]] = defaultdict(list)
    for header in headers:
        groups[header.series_uid].append(header)
    listings: list[SeriesListing] = []
    problems: list[Problem] = []
    for uid in sorted(groups):
        patients = sorted({header.patient_id for header in groups[uid]})
        if len(patients) > 1:
            reason = f"series {uid} holds images of the patients {', '.join(patients)}; it is not used"
            problems += [Problem(Code.SERIES_MIXED, reason, patient_id=patient) for patient in patients]
            continue
        instances, duplicates = _once(sorted(groups[uid], key=lambda header: header.file.path))
        problems += duplicates
        faulty = [header for header in instances if header.fault]
        if faulty:
            first = faulty[0]
            reason = f"{len(faulty)} of {len(instances)} images of the {first.modality} series {uid}: {first.fault}"
            problems.append(Problem(Code.IMAGE_INVALID, reason, patient_id=first.patient_id, where=first.file.path))
        usable = [header for header in instances if not header.fault]
        if usable:
            listings += [_listing(part, stack) for stack, part in split_series(usable)]
    return listings, problems


def _once(instances: list[ImageHeader]) -> tuple[list[ImageHeader], list[Problem]]:
    kept: dict[tuple[str, int], ImageHeader] = {}
    twice: list[tuple[ImageHeader, ImageHeader]] = []
    for header in instances:
        first = kept.setdefault((header.sop_uid, header.frame), header)
        if first is not header:
            twice.append((first, header))
    if not twice:
        return instances, []
    first, second = twice[0]
    differ = sum(one.file.bytes != two.file.bytes or one.position != two.position for one, two in twice)
    reason = f"instances found a second time: {len(twice)}, of these not alike: {differ}; kept the first by path"
    where = f"{first.file.path} and {second.file.path}"
    problem = Problem(Code.DUPLICATE_INSTANCE, reason, patient_id=first.patient_id, where=where)
    return list(kept.values()), [problem]


def _listing(instances: list[ImageHeader], stack: str) -> SeriesListing:
    normal = slice_normal(most_common_orientation(header.orientation for header in instances))
    ordered = sorted(instances, key=lambda header: (dot(normal, header.position), header.sop_uid, header.frame))
    folder = os.path.commonpath([os.path.dirname(header.file.path) for header in instances])  # noqa: PTH120
    units, factors, no_suv, notes = _values(ordered)
    slices = tuple(
        SliceFile(
            file=os.path.relpath(header.file.path, folder),
            sop_uid=header.sop_uid,
            position=header.position,
            orientation=header.orientation,
            pixel_spacing=header.pixel_spacing,
            size=header.size,
            bytes=header.file.bytes,
            modified_ns=header.file.modified_ns,
            frame=header.frame,
            suv_factor=factor,
        )
        for header, factor in zip(ordered, factors, strict=True)
    )
    first = instances[0]
    return SeriesListing(
        series_uid=first.series_uid,
        study_uid=first.study_uid,
        patient_id=first.patient_id,
        modality=first.modality,
        frame_of_reference_uid=first.frame_of_reference_uid,
        description=first.description,
        root=folder,
        slices=slices,
        stack=stack,
        units=units,
        no_suv=no_suv,
        notes=notes,
    )


def _values(ordered: Sequence[ImageHeader]) -> tuple[str, Sequence[float | None], str, str]:
    """The units of a stack's values, each image's factor to SUVs, why there is none, what has to be known of them."""
    units = " and ".join(sorted({header.units for header in ordered if header.units}))
    notes = "; ".join(sorted({header.note for header in ordered if header.note}))
    nothing: list[float | None] = [None] * len(ordered)
    pet = [header.pet for header in ordered if header.pet is not None]
    if len(pet) < len(ordered):
        return units, nothing, "", notes
    try:
        found = suv_of(pet)
    except CaseError as error:
        return units, nothing, error.problem.reason, notes
    return units, found.factors, "", "; ".join(filter(None, (notes, found.note)))
