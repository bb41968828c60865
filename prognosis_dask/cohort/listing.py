"""The listing of a DICOM series: which file holds which slice, and the geometry of its planes."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.headers import Point
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.objects.address import Address, is_address, join, vouched
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
