"""Image series: instances grouped and split into stacks of slices, and the listing of each, which names its files."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path

from prognosis_dask.arrays import NumberArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.dicom_header import name_syntax
from prognosis_dask.cohort.headers import ACQUISITION, MARKS, ImageHeader, Point
from prognosis_dask.cohort.pet import suv_of
from prognosis_dask.errors import CaseError, Code, Problem, count
from prognosis_dask.objects.address import Address, common_folder, is_address, join, relative, vouched
from prognosis_dask.objects.files import put_changed, read_bytes

#: What the names of listings end with.
SUFFIX = ".series.json"


@dataclass(frozen=True)
class SliceFile:
    """One instance of a series.

    ``position`` is ImagePositionPatient, ``orientation`` ImageOrientationPatient, ``pixel_spacing`` PixelSpacing
    (row spacing first), all in mm and in DICOM's patient coordinates; ``size`` is (rows, columns). ``frame`` is the
    number, from 1, of the frame in a multi-frame file; 0: the file holds one slice. ``suv_factor`` (PET) turns the
    rescaled value into SUVbw, in g/mL; None if the headers are insufficient. ``etag`` is what the store says of an
    object, whose ``modified_ns`` is 0.
    """

    file: str
    sop_uid: str
    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    size: tuple[int, int]
    bytes: int
    modified_ns: int
    frame: int = 0
    suv_factor: float | None = None
    etag: str = ""


@dataclass(frozen=True)
class SeriesListing:
    """A DICOM image series as indexed. ``slices`` are in order along the slice normal.

    ``root`` is the folder, or the address, that the slices' ``file`` names are relative to; empty: they are whole.
    ``stack`` says which of the series' stacks of slices it is (a time point, an echo, an acquisition), or is empty if
    there is one. ``units`` are those of the stored values after rescaling; ``no_suv`` (PET) says why SUVs cannot be
    computed; ``notes``, remarks on the values.
    ``acquisition`` is what it was acquired with (:data:`~prognosis_dask.cohort.headers.ACQUISITION`).
    """

    series_uid: str
    study_uid: str
    patient_id: str
    modality: str
    frame_of_reference_uid: str
    description: str
    root: str
    slices: tuple[SliceFile, ...]
    stack: str = ""
    units: str = ""
    no_suv: str = ""
    notes: str = ""
    acquisition: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """The identity of the listing: the series' UID, with a suffix for the stack if there are several."""
        if not self.stack:
            return self.series_uid
        return f"{self.series_uid}.{hashlib.sha256(self.stack.encode()).hexdigest()[:6]}"

    @property
    def digest(self) -> str:
        """Digest over identity, size and modification time of every file, or what the store vouches for."""
        marks = [vouched(join(self.root, s.file), s.etag) if s.etag else s.modified_ns for s in self.slices]
        lines = [
            f"{s.sop_uid} {s.bytes} {mark}{f' {s.frame}' if s.frame else ''}"
            for s, mark in zip(self.slices, marks, strict=True)
        ]
        return hashlib.sha256("\n".join([self.series_uid, *lines]).encode()).hexdigest()[:16]


def write_listing(folder: Path, listing: SeriesListing) -> Path:
    """Write the listing as ``folder/<key>.series.json`` and return its path."""
    path = folder / f"{listing.key}{SUFFIX}"
    path.write_text(json.dumps(asdict(listing)), encoding="utf-8")
    return path


def read_listing(path: Path | str) -> SeriesListing:
    """Read what :func:`write_listing` wrote, from a folder or a bucket.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE`` when the file is missing or is not such a listing.
    """
    try:
        data = json.loads(read_bytes(str(path)))
        slices = tuple(_slice(item) for item in data.pop("slices"))
        return SeriesListing(**data, slices=slices)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CaseError(
            Code.UNREADABLE_FILE,
            f"cannot read the listing of the series ({error}); index the cohort again",
            where=str(path),
        ) from error


def with_listings(cases: Sequence[Case], address: Address) -> list[Case]:
    """The cases with the listings of their series in a bucket, where every worker can read them.

    Raises
    ------
    OSError, CaseError, BucketError
        When a listing cannot be read, or not be written there.
    """
    paths = {path for case in cases for path in (case.image, *case.sequences.values()) if path.endswith(SUFFIX)}
    names: dict[str, Path] = {}
    moved: dict[str, str] = {}
    for path in sorted(path for path in paths if not is_address(path)):
        file = Path(path)
        name = file.name
        if name in names:  # of the same series in another folder
            name = f"{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}/{name}"
        names[name] = file
        moved[path] = str(address / "series" / name)
    put_changed(names, address / "series")
    return [
        replace(
            case,
            image=moved.get(case.image, case.image),
            sequences={name: moved.get(path, path) for name, path in case.sequences.items()},
        )
        for case in cases
    ]


def _slice(item: dict[str, Sequence[float] | str | int | float | None]) -> SliceFile:
    return SliceFile(**{key: tuple(value) if isinstance(value, list) else value for key, value in item.items()})  # type: ignore[arg-type]


def most_common_orientation(orientations: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """The orientation of most images of a series (there may be a scout among them)."""
    # rounded: the last digits of one direction vary between images
    counts = Counter(tuple(round(value, 4) for value in orientation) for orientation in orientations)
    return min(counts, key=lambda orientation: (-counts[orientation], orientation))


def slice_normal(orientation: tuple[float, ...]) -> Point:
    """Unit normal of the image plane: row direction x column direction (DICOM PS3.3 C.7.6.2.1.1).

    >>> slice_normal((1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    (0.0, 0.0, 1.0)
    """
    a, b = orientation[:3], orientation[3:]
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    length = math.sqrt(dot(cross, cross)) or 1.0
    return cross[0] / length, cross[1] / length, cross[2] / length


def dot(a: Point, b: Point) -> float:
    """Scalar product of two vectors in mm."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


#: Slices nearer than this are at the same position: no scanner produces such thin slices.
SAME_POSITION_MM = 0.01
#: Direction cosines and relative spacings that differ by more belong to another stack; smaller differences are checked
#: when the stack is read.
OTHER_PLANE = 0.01
#: Relative tolerance of distances between slices in a stack that needs no splitting.
EVEN = 0.01
#: Fewest slices of a stack among overlapping acquisitions; fewer may be even by chance.
LEAST_SLICES = 3
#: Copies of a series' instances whose pixels are compared: copies that were processed differ everywhere.
COMPARED = 5


def group_series(headers: Iterable[ImageHeader]) -> tuple[list[SeriesListing], list[Problem]]:
    """Group instances by SeriesInstanceUID, each once, in order along the slice normal.

    Returns the listings of the usable series, several where a series holds several stacks
    (:func:`~prognosis_dask.cohort.series.split_series`), and the problems: duplicate instances, and
    series whose images have no position in the patient.
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
        frames = {header.frame_of_reference_uid for header in usable} - {""}
        if len(frames) > 1:
            reason = f"the images of series {uid} name {len(frames)} frames of reference: whether their positions go "
            reason += "together is not known; used as if they did, check where the ROI lies"
            where, patient = usable[0].file.path, usable[0].patient_id
            problems.append(Problem(Code.SERIES_MIXED, reason, patient, where=where, severity="warning"))
        for stack, part in split_series(usable) if usable else ():
            single, doubled = _once_at_a_place(part)
            listings.append(_listing(single, stack))
            problems += doubled
    return listings, problems


def _once(instances: list[ImageHeader]) -> tuple[list[ImageHeader], list[Problem]]:
    """Each instance once, the first by path; none where copies hold other values, and a problem about the copies."""
    kept: dict[tuple[str, int], ImageHeader] = {}
    twice: list[tuple[ImageHeader, ImageHeader]] = []
    for header in instances:
        first = kept.setdefault((header.sop_uid, header.frame), header)
        if first is not header:
            twice.append((first, header))
    if not twice:
        return instances, []
    pairs = list(dict.fromkeys((one.file.path, two.file.path) for one, two in twice))
    apart = next((pair for pair in _some(pairs) if _other_values(*pair)), None)
    if apart:
        reason = f"duplicate instances: {len(twice)}, whose pixels differ; none is used: index one of the copies alone"
        problem = Problem(Code.DUPLICATE_INSTANCE, reason, instances[0].patient_id, where=" and ".join(apart))
        return [], [problem]
    differ = sum(one.file.bytes != two.file.bytes or one.position != two.position for one, two in twice)
    reason = f"duplicate instances: {len(twice)}, {differ} of them different; kept the first by path"
    problem = Problem(Code.DUPLICATE_INSTANCE, reason, instances[0].patient_id, where=" and ".join(pairs[0]))
    return list(kept.values()), [problem]


def _once_at_a_place(stack: list[ImageHeader]) -> tuple[list[ImageHeader], list[Problem]]:
    """Of images of the same values at one place, under several UIDs, the first by path, and a problem about the others.

    The stack as it is where one of those that are compared holds other values: reading it says what is doubled.
    """
    kept: dict[tuple[float, ...], ImageHeader] = {}
    twice = [(first, one) for one in stack if (first := kept.setdefault(one.position, one)) is not one]
    pairs = [(one.file.path, two.file.path) for one, two in twice if not (one.frame or two.frame)]
    if not twice or len(pairs) < len(twice) or any(_other_values(*pair, unread=True) for pair in _some(pairs)):
        return stack, []
    reason = f"{count(len(twice), 'image')} at the place of another, with its values, under other UIDs; kept the first"
    where = " and ".join(pairs[0])
    return list(kept.values()), [Problem(Code.DUPLICATE_INSTANCE, reason, stack[0].patient_id, where=where)]


def _some(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return pairs[:: max(1, len(pairs) // COMPARED)]


def _other_values(one: str, two: str, *, unread: bool = False) -> bool:
    """Whether two images hold other values; ``unread`` where one of them cannot be read."""
    import numpy as np

    try:
        contents = read_bytes(one), read_bytes(two)
        if contents[0] == contents[1]:
            return False
        first, second = map(_values_in, contents)
        return not np.array_equal(first, second)
    except Exception:  # decoders may raise anything: reading the case says what is wrong with its own copy
        return unread


def _values_in(content: bytes) -> NumberArray:
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_modality_lut

    dataset = dcmread(BytesIO(content), force=True)
    name_syntax(dataset)
    stored: NumberArray = dataset.pixel_array
    for name in ("RescaleSlope", "RescaleIntercept"):
        if dataset.get(name, 0) is None:  # empty is as good as absent
            delattr(dataset, name)
    return apply_modality_lut(stored, dataset)


def _listing(instances: list[ImageHeader], stack: str) -> SeriesListing:
    normal = slice_normal(most_common_orientation(header.orientation for header in instances))
    ordered = sorted(instances, key=lambda header: (dot(normal, header.position), header.sop_uid, header.frame))
    folder = common_folder([header.file.path for header in instances])
    units, factors, no_suv, notes = _values(ordered)
    slices = tuple(
        SliceFile(
            file=relative(header.file.path, folder),
            sop_uid=header.sop_uid,
            position=header.position,
            orientation=header.orientation,
            pixel_spacing=header.pixel_spacing,
            size=header.size,
            bytes=header.file.bytes,
            modified_ns=header.file.modified_ns,
            frame=header.frame,
            suv_factor=factor,
            etag=header.file.etag,
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
        acquisition=_acquisition(ordered),
    )


def _acquisition(ordered: Sequence[ImageHeader]) -> dict[str, str]:
    """What the headers say that the images were acquired with; ``varies`` where they do not say the same."""
    said = [header.acquisition.split("\t") for header in ordered if header.acquisition]
    columns = zip(ACQUISITION, zip(*said, strict=True), strict=False)
    values = {name: {_rounded(value) for value in column} - {""} for name, column in columns}
    return {name: next(iter(own)) if len(own) == 1 else "varies" for name, own in values.items() if own}


def _rounded(value: str) -> str:
    """A number to four digits, since the last ones of one setting differ between images; text as it is.

    >>> _rounded("3.26999999999998"), _rounded("120"), _rounded("B30f"), _rounded("None")
    ('3.27', '120', 'B30f', '')
    """
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return "" if value == "None" else value


def _values(ordered: Sequence[ImageHeader]) -> tuple[str, Sequence[float | None], str, str]:
    """The units of a stack's values, each image's factor to SUVs, why there is none, and remarks."""
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


def split_series(instances: Sequence[ImageHeader]) -> list[tuple[str, list[ImageHeader]]]:
    """The stacks of a series, each with its distinguishing values; unnamed if there is only one.

    Distinguished are: images of another modality, direction, spacing or size (a scout); several images at each position
    whose headers differ in one of :data:`~prognosis_dask.cohort.headers.MARKS`, or in a combination of them (time
    points, echoes, b-values, reconstructions); overlapping acquisitions whose slices are even only if separated.
    """
    planes = _planes(instances)
    what = "direction" if len({header.modality for header in instances}) == 1 else ""
    stacks = []
    for number, plane in enumerate(planes, start=1):
        for name, part in _parted(plane):
            turned = f"{what or plane[0].modality} {number} of {len(planes)}" if len(planes) > 1 else ""
            stacks.append((", ".join(filter(None, (turned, name))), part))
    return stacks


def _planes(instances: Sequence[ImageHeader]) -> list[list[ImageHeader]]:
    """Images of one modality, direction, spacing and size together; the largest group first."""
    groups: list[list[ImageHeader]] = []
    for header in instances:
        for group in groups:
            if _same_plane(group[0], header):
                group.append(header)
                break
        else:
            groups.append([header])
    return sorted(groups, key=lambda group: (-len(group), min(header.sop_uid for header in group)))


def _same_plane(one: ImageHeader, other: ImageHeader) -> bool:
    turned = max(abs(a - b) for a, b in zip(one.orientation, other.orientation, strict=True))
    scaled = max(abs(a / b - 1) for a, b in zip(one.pixel_spacing, other.pixel_spacing, strict=True))
    return (one.modality, one.size) == (other.modality, other.size) and turned <= OTHER_PLANE and scaled <= OTHER_PLANE


def _parted(plane: list[ImageHeader]) -> list[tuple[str, list[ImageHeader]]]:
    heights = _heights(plane)
    most = _most_at_one_place(heights)
    if most == 1 and _is_even(heights):
        return [("", plane)]
    for names, groups in _ways(plane):
        parts = list(groups.values())
        if _is_sound(parts, most):
            return [
                (" ".join(f"{name} {value}" for name, value in zip(names, values, strict=True)), groups[values])
                for values in sorted(groups)
            ]
    return [("", plane)]


def _ways(plane: list[ImageHeader]) -> Iterator[tuple[tuple[str, ...], dict[tuple[str, ...], list[ImageHeader]]]]:
    """Every way to split the images by up to three of the elements in which they differ."""
    marks = {header: dict(zip(MARKS, header.marks.split("\t"), strict=True)) for header in plane if header.marks}
    if len(marks) < len(plane):
        return
    differing = [name for name in MARKS if len({own[name] for own in marks.values()}) > 1]
    for number in (1, 2, 3):
        for names in itertools.combinations(differing, number):
            groups: dict[tuple[str, ...], list[ImageHeader]] = defaultdict(list)
            for header in plane:
                groups[tuple(marks[header][name] for name in names)].append(header)
            if len(groups) < len(plane):
                yield names, groups


def _is_sound(parts: list[list[ImageHeader]], most: int) -> bool:
    """Whether each part is a stack: no two slices at one position, and as many parts as images per position."""
    heights = [_heights(part) for part in parts]
    if any(_most_at_one_place(own) > 1 for own in heights):
        return False
    if len(parts) == most and most > 1:
        return True
    even = all(len(own) >= LEAST_SLICES and _is_even(own) for own in heights)
    return even and _overlap(heights)


def _overlap(heights: list[list[float]]) -> bool:
    spans = sorted((own[0], own[-1]) for own in heights)
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))


def _heights(part: Sequence[ImageHeader]) -> list[float]:
    normal = slice_normal(part[0].orientation)
    return sorted(dot(normal, header.position) for header in part)


def _most_at_one_place(heights: Sequence[float]) -> int:
    """The largest number of slices at one height."""
    places = Counter(
        itertools.accumulate(b - a > SAME_POSITION_MM for a, b in itertools.pairwise([heights[0], *heights]))
    )
    return max(places.values())


def _is_even(heights: Sequence[float]) -> bool:
    gaps = sorted(b - a for a, b in itertools.pairwise(heights))
    return not gaps or gaps[-1] - gaps[0] <= EVEN * gaps[len(gaps) // 2] + SAME_POSITION_MM
