"""Match images and masks: every image of a possible case, with the structures that belong to it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import combinations
from pathlib import Path

from prognosis_dask.cohort.clinical import patient_key
from prognosis_dask.cohort.collections import Rules
from prognosis_dask.cohort.headers import UNNAMED, FileStamp, Header, ImageHeader, MaskHeader, Structure, VolumeFile
from prognosis_dask.cohort.linking import Catalogue, beside_their_images
from prognosis_dask.cohort.names import OTHER_MODALITY
from prognosis_dask.cohort.pairs import link_volumes, pair_volumes, roi_name
from prognosis_dask.cohort.rois import Candidate
from prognosis_dask.cohort.series import SeriesListing, group_series
from prognosis_dask.cohort.sources import TableRow
from prognosis_dask.errors import BucketError, CaseError, Code, Problem, count
from prognosis_dask.objects.files import as_local, read_bytes
from prognosis_dask.volumes.files import volume_voxels
from prognosis_dask.volumes.labels import labels_in


@dataclass
class Image:
    """A DICOM series (``listing``) or an image file (``file``) of a requested modality, and its structures.

    ``sequence``: of MR ``T1``, ``T1c``, ``T2``, ``FLAIR`` or empty; ``doubt``: where name and header do not say it
    alike.
    """

    key: str
    patient_id: str
    modality: str
    listing: SeriesListing | None = None
    file: FileStamp | None = None
    candidates: list[Candidate] = field(default_factory=list)
    sequence: str = ""
    doubt: str = ""

    @property
    def series(self) -> str:
        """The series that it belongs to, whichever of its stacks it is, or the file."""
        return self.listing.series_uid if self.listing is not None else self.path

    @property
    def path(self) -> str:
        """The file, or the key of the series."""
        return self.file.path if self.file is not None else self.key

    @property
    def uid(self) -> str:
        """An identity that does not depend on the location: SeriesInstanceUID, or file and folder name."""
        return self.key if self.file is None else short_path(self.file.path)

    @property
    def digest(self) -> str:
        """Identity, size and modification time of its files, or what their store vouches for."""
        if self.listing is not None:
            return self.listing.digest
        if self.file is None:
            return ""
        return self.file.identity if self.file.etag else f"{self.file.bytes} {self.file.modified_ns}"


@dataclass
class Gathered:
    """All images, the problems, and how many masks were assigned by geometry alone."""

    images: dict[str, Image] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    by_geometry: int = 0


def gather(headers: Sequence[Header], rows: Iterable[TableRow], rules: Rules) -> Gathered:
    """Link masks to series, pair files by name, and take a table's rows as they are."""
    gathered = Gathered(problems=[header for header in headers if isinstance(header, Problem)])
    listings = _add_dicom(gathered, headers, rules)
    _add_volumes(gathered, [header for header in headers if isinstance(header, VolumeFile)], listings, rules)
    for row in rows:
        image = _add_file(gathered, row.image, row.patient_id, row.modality, rules)
        if image is not None:
            structure = Structure(row.label, (row.roi,))
            found = candidate(row.mask, structure, (row.label,), named=False)
            image.candidates.append(replace(found, covariates=row.covariates))
    _refuse_both(gathered.images.values(), rules.collection.either)
    gathered.problems += _of_one_id(header for header in headers if isinstance(header, ImageHeader))
    gathered.problems += _of_one_name(gathered.images.values())
    return gathered


#: What de-identification writes for every PatientID.
_PLACEHOLDER = re.compile(r"anon\w*|unknown|none|null|n/?a|removed|de-?identified|patient|test|x+|0+", re.IGNORECASE)
_TWO_PEOPLE = "used as one patient, with one row of the clinical table; give different people IDs of their own"


def _of_one_id(headers: Iterable[ImageHeader]) -> Iterator[Problem]:
    """A warning for each PatientID whose images seem to be of several people."""
    seen: dict[str, dict[tuple[str, str], ImageHeader]] = defaultdict(dict)
    for header in headers:
        seen[patient_key(header.patient_id)].setdefault((header.study_uid, header.person), header)
    for found in seen.values():
        first, *_ = found.values()
        studies = len({study for study, _ in found})
        people: dict[str, ImageHeader] = {}  # each once: a placeholder may be the ID of thousands of studies
        for header in found.values():
            people.setdefault(header.person, header)
        pairs = combinations(people.values(), 2)
        mismatch = next(((why, two) for one, two in pairs if (why := _other_person(one.person, two.person))), None)
        if mismatch is None and studies > 1 and _PLACEHOLDER.fullmatch(first.patient_id):
            mismatch = f"a placeholder, in {studies} studies", first
        if mismatch is not None:
            reason = f"images of the PatientID {first.patient_id!r} seem to be of several people ({mismatch[0]}): "
            where = mismatch[1].file.path
            yield Problem(Code.PATIENTS_MIXED, reason + _TWO_PEOPLE, first.patient_id, where=where, severity="warning")


def _other_person(one: str, two: str) -> str:
    """In what two headers' name, date of birth or sex differ; names of which one holds the other's words do not."""
    for label, first, second in zip(("name", "date of birth", "sex"), one.split("\t"), two.split("\t"), strict=True):
        words = [set(re.findall(r"\w+", text.casefold())) for text in (first, second)]
        if all(words) and not (words[0] <= words[1] or words[1] <= words[0]):
            return f"another {label}"  # the values themselves are not for a list of problems
    return ""


def _of_one_name(images: Iterable[Image]) -> Iterator[Problem]:
    """A warning where image files of one patient have the same name, in folders of the same name, in several places."""
    places: dict[tuple[str, str], list[Image]] = defaultdict(list)
    for image in images:
        if image.file is not None and image.candidates:
            places[patient_key(image.patient_id), image.uid].append(image)
    for first, *others in places.values():
        if others and others[0].path != first.path:
            reason = f"{len(others) + 1} images of the patient {first.patient_id!r} are called {first.uid}, one is in "
            reason += f"{Path(others[0].path).parent}: if these are of several people, they are "
            where = first.path
            yield Problem(Code.PATIENTS_MIXED, reason + _TWO_PEOPLE, first.patient_id, where=where, severity="warning")


def _refuse_both(images: Iterable[Image], either: Sequence[int]) -> None:
    """Where a map has two labels that are one thing in different years, no region with either is used, in any map.

    Of such a cohort a map with one of them may mean the other thing too.
    """
    found: dict[str, set[int]] = defaultdict(set)
    for image in images:
        for one in image.candidates:
            found[one.mask.path] |= set() if one.structure.empty else set(one.labels)
    both = sorted(path for path, labels in found.items() if either and labels >= set(either))
    if not both:
        return
    held = f"{count(len(both), 'map')} ({short_path(both[0])}{' ...' if len(both) > 1 else ''})"
    reason = (
        f"labels {' and '.join(map(str, either))} are both in {held}: in one year of BraTS each is the enhancing part, "
        "together one is a cavity, oedema or core; name the labels in a table beside the maps"
    )
    for image in images:
        for at, one in enumerate(image.candidates):
            meant = set(either) & set(one.labels) and not one.structure.empty
            if meant and one.names_from is None and one.kind == "label map":
                fault = Problem(Code.MASK_UNREADABLE, reason, where=one.mask.path)
                image.candidates[at] = replace(one, structure=replace(one.structure, fault=fault))


def _add_dicom(gathered: Gathered, headers: Sequence[Header], rules: Rules) -> list[SeriesListing]:
    listings, problems = group_series(header for header in headers if isinstance(header, ImageHeader))
    gathered.problems += problems
    for listing in listings:
        if listing.modality in rules.modalities:
            key = listing.key
            gathered.images[key] = Image(key, listing.patient_id, listing.modality, listing=listing)
    catalogue = Catalogue(listings, [header for header in headers if isinstance(header, ImageHeader) and header.fault])
    for mask in _once(gathered, [header for header in headers if isinstance(header, MaskHeader)]):
        _link(gathered, catalogue, mask, rules)
    return listings


def _once(gathered: Gathered, masks: Iterable[MaskHeader]) -> list[MaskHeader]:
    """Each mask once, the first by path; none of several that outline something else under one SOPInstanceUID."""
    copies: dict[str, list[MaskHeader]] = defaultdict(list)
    for mask in masks:
        copies[mask.sop_uid].append(mask)
    kept: list[MaskHeader] = []
    for first, *others in copies.values():
        different = [other for other in others if not _outline_the_same(first, other)]
        kept += [] if different else [first]
        said = (
            "with different content; none is used: index one of them alone"
            if different
            else "with the same content; kept that one"
        )
        gathered.problems += [
            Problem(
                Code.DUPLICATE_INSTANCE,
                f"the same {other.kind} (SOPInstanceUID {other.sop_uid}) as {first.file.path}, {said}",
                patient_id=other.patient_id,
                where=other.file.path,
            )
            for other in different or others
        ]
    return kept


#: What a mask holds; two copies may have been de-identified differently.
_CONTENT = (
    "StructureSetROISequence",
    "ROIContourSequence",
    "SegmentSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelData",
)


def _outline_the_same(one: MaskHeader, other: MaskHeader) -> bool:
    from pydicom import dcmread

    if _content(one.file) == _content(other.file):
        return True
    try:
        first, second = (dcmread(BytesIO(read_bytes(mask.file.path)), force=True) for mask in (one, other))
        return all(first.get(name) == second.get(name) for name in _CONTENT)
    except Exception:  # a damaged file may raise anything
        return False


def _content(file: FileStamp) -> str:
    return file.sha256 or f"{file.bytes} {file.etag}"


def _link(gathered: Gathered, catalogue: Catalogue, mask: MaskHeader, rules: Rules) -> None:
    for fault in mask.faults:
        reason = f"{fault}; the other ROIs of the mask are used"
        gathered.problems.append(
            Problem(Code.MASK_ITEM_INVALID, reason, mask.patient_id, where=mask.file.path, severity="warning")
        )
    failed: dict[Code, list[Problem]] = defaultdict(list)
    linked: dict[str, bool] = {}
    homeless: list[Structure] = []
    apart = False
    placed: dict[str, list[Structure]] = defaultdict(list)
    for structure in mask.structures:
        try:
            link = catalogue.link(mask, structure, rules.modalities)
        except CaseError as error:
            if structure.empty or structure.fault:
                homeless.append(structure)
            else:
                failed[error.problem.code].append(error.problem)
            continue
        linked[link.series_uid] = linked.get(link.series_uid, False) or link.by_geometry
        apart |= _is_elsewhere(mask, structure, catalogue.series[link.series_uid])
        placed[link.series_uid].append(structure)
        _attach(gathered, link.series_uid, mask, structure)
    for structure in homeless:  # without a contour it cannot be placed: it goes with the others
        for uid in list(linked)[:1]:
            _attach(gathered, uid, mask, structure)
    gathered.by_geometry += any(linked.values())
    beside = sum(beside_their_images(structures, catalogue.series[uid]) for uid, structures in placed.items())
    gathered.problems += _doubts_of_place(mask, catalogue, list(linked), apart=apart, beside=beside)
    gathered.problems += _of_another(mask, {catalogue.series[key].patient_id for key in linked})
    for problems in failed.values():
        first = problems[0].of(patient_id=mask.patient_id)
        more = f" (and {len(problems) - 1} more ROIs of this mask)" if len(problems) > 1 else ""
        gathered.problems.append(Problem(first.code, first.reason + more, first.patient_id, where=first.where))
    if not linked and not failed:
        reason = f"none of its {len(mask.structures)} ROIs has a contour"
        code = Code.MASK_EMPTY if mask.kind == "SEG" else Code.ROI_WITHOUT_CONTOUR
        gathered.problems.append(Problem(code, reason, patient_id=mask.patient_id, where=mask.file.path))


def _doubts_of_place(
    mask: MaskHeader, catalogue: Catalogue, linked: Sequence[str], *, apart: bool, beside: int
) -> Iterator[Problem]:
    """Warnings of a mask that lies on images which it does not name, or whose frame of reference is another one."""
    where = mask.file.path
    if linked and catalogue.absent(mask):
        series = ", ".join(catalogue.series[key].series_uid for key in linked)
        reason = (
            f"none of the images that it references was found (series {', '.join(mask.series_uids) or 'not named'}); "
            f"it was assigned to {series}, which has the same frame of reference"
        )
        yield Problem(Code.MASK_WITHOUT_SERIES, reason, mask.patient_id, where=where, severity="warning")
    if apart:
        reason = (
            "its frame of reference is another one than that of the images that it references: its coordinates are "
            "used as they are; if it was drawn on other images, check where it lies"
        )
        yield Problem(Code.MASK_ITEM_INVALID, reason, mask.patient_id, where=where, severity="warning")
    if beside:
        what = count(beside, "frame" if mask.kind == "SEG" else "contour")
        reason = f"{what} of its structures: their coordinates lie on another slice than that of the image that they "
        reason += "name; the coordinates count: check where it lies"
        yield Problem(Code.CONTOUR_OFF_PLANE, reason, mask.patient_id, where=where, severity="warning")
    if mask.is_rejected and linked:
        reason = "its ApprovalStatus is REJECTED: who reviewed it found it unacceptable; used all the same, leave the "
        reason += "file out if that is not meant"
        yield Problem(Code.MASK_ITEM_INVALID, reason, mask.patient_id, where=where, severity="warning")


def _is_elsewhere(mask: MaskHeader, structure: Structure, listing: SeriesListing) -> bool:
    """Whether a structure's coordinates are in another frame of reference than its series."""
    own = {structure.frame_uid} - {""} or mask.frame_of_reference_uids
    return bool(own) and listing.frame_of_reference_uid not in ("", *own)


def _of_another(mask: MaskHeader, patients: Iterable[str]) -> Iterator[Problem]:
    """A warning for each patient on whose images a mask lies that names another one."""
    for patient in sorted(patients):
        if patient_key(patient) != patient_key(mask.patient_id) and not mask.patient_id.startswith(UNNAMED):
            reason = f"its PatientID is {mask.patient_id!r}, and it references images of {patient!r}: used with those"
            yield Problem(Code.MASK_ITEM_INVALID, reason, patient, where=mask.file.path, severity="warning")


def _attach(gathered: Gathered, uid: str, mask: MaskHeader, structure: Structure) -> None:
    image = gathered.images.get(uid)
    if image is not None:  # else its modality was not requested
        image.candidates.append(Candidate(mask.file, mask.sop_uid, mask.kind, structure, (structure.number,)))


def _add_volumes(
    gathered: Gathered, files: Sequence[VolumeFile], listings: Sequence[SeriesListing], rules: Rules
) -> None:
    """Pair image files with masks by name; link masks without an image file to a series."""
    headers = {file.file.path: file for file in files}
    paired = pair_volumes(files)
    asked = bool(rules.roi)
    for pair in paired.pairs:
        image = _add_file(gathered, pair.image.file, pair.patient_id, pair.image.modality or pair.mask.modality, rules)
        if image is not None:
            image.candidates += label_candidates(headers[pair.mask.file.path], pair.roi, rules, asked=asked)
    for patient, volume in paired.alone:
        _add_file(gathered, volume.file, patient, volume.modality, rules)
    links, problems = link_volumes(paired.masks, [one for one in listings if one.modality in rules.modalities])
    gathered.problems += problems
    for link in links:
        roi = roi_name(link.mask, known=link.known)
        found = label_candidates(headers[link.mask.file.path], roi, rules, asked=asked)
        gathered.images[link.listing.key].candidates += found
        gathered.by_geometry += link.by_geometry
        if link.other_grid:
            where, patient = link.mask.file.path, link.listing.patient_id
            gathered.problems.append(
                Problem(Code.MASK_OTHER_GRID, link.other_grid, patient, where=where, severity="warning")
            )


def _add_file(gathered: Gathered, file: FileStamp, patient_id: str, modality: str, rules: Rules) -> Image | None:
    only = rules.modalities[0] if len(rules.modalities) == 1 else OTHER_MODALITY
    modality = modality.upper() or only
    if modality not in (*rules.modalities, OTHER_MODALITY):
        return None
    key = file.path
    earlier = gathered.images.get(key)
    if earlier is not None and (patient_key(earlier.patient_id), earlier.modality) != (
        patient_key(patient_id),
        modality,
    ):
        key = f"{file.path} of {patient_id} as {modality}"  # a table may assign one image to several patients
    return gathered.images.setdefault(key, Image(key, patient_id, modality, file=file))


def short_path(path: str) -> str:
    """File and folder name.

    >>> short_path("/data/P1/mask.nii.gz")
    'P1/mask.nii.gz'
    """
    return "/".join(Path(path).parts[-2:])


def label_candidates(file: VolumeFile, roi: str, rules: Rules, *, asked: bool) -> list[Candidate]:
    """The structures of a label map: its named labels, unnamed ones if a rule asks for names, else the file as one.

    Parameters
    ----------
    file
        The mask, with the names of its labels where they were found.
    roi
        The words of its file name that do not identify the patient.
    rules
        Of the index: a collection may name unions of labels.
    asked
        Whether rules select ROIs by name. A file without names then counts as the ROI only if it has one label.
    """
    if file.present:
        return list(_named(file, roi))
    if rules.collection.regions and roi.casefold() in ("", *rules.collection.region_files):
        return list(_regions(file, rules.collection.regions))
    labels = _labels(file.file) if asked and not roi else ()
    if len(labels) > 1:
        return [_of_label(file, label) for label in labels]
    return [candidate(file.file, Structure(0, (roi or "mask",)), (), named=bool(roi))]


def candidate(
    file: FileStamp,
    structure: Structure,
    labels: tuple[int, ...],
    *,
    named: bool = True,
    names_from: FileStamp | None = None,
) -> Candidate:
    """A structure of a label map."""
    return Candidate(file, short_path(file.path), "label map", structure, labels, named, names_from=names_from)


def _named(file: VolumeFile, roi: str) -> Iterator[Candidate]:
    """The named labels that occur (a table may list more), and the others by number."""
    for segment in file.segments:
        empty = not set(segment.labels) & set(file.present)
        if empty and file.names_from is not None:
            continue
        names = (segment.name, roi) if roi and len(file.segments) == 1 else (segment.name,)
        structure = Structure(segment.labels[0], names, empty=empty)
        yield candidate(file.file, structure, segment.labels, names_from=file.names_from)
    known = {label for segment in file.segments for label in segment.labels}
    yield from (_of_label(file, label) for label in file.present if label not in known)


def _regions(file: VolumeFile, regions: Mapping[str, tuple[int, ...]]) -> Iterator[Candidate]:
    """The collection's unions of labels, by those that occur; labels in none of them by number."""
    present = _labels(file.file)
    for number, (name, labels) in enumerate(regions.items(), 1):
        held = tuple(label for label in labels if label in present)
        yield candidate(file.file, Structure(number, (name,), empty=not held), held or labels)
    known = {label for labels in regions.values() for label in labels}
    yield from (_of_label(file, label) for label in present if label not in known)


def _of_label(file: VolumeFile, label: int) -> Candidate:
    return candidate(file.file, Structure(label, (f"label-{label}",)), (label,), names_from=file.names_from)


def _labels(file: FileStamp) -> tuple[int, ...]:
    try:
        with as_local(file.path) as path:
            return labels_in(volume_voxels(path))
    except CaseError as error:
        # it may well be given when the case is read: several labels would be measured as one
        if error.problem.code is Code.OBJECT_UNREADABLE:
            raise BucketError.of(error) from error
        return ()  # the fault is reported when the case is read
