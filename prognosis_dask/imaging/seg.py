"""Read the segments of a DICOM SEG on the grid of the image; every frame is placed by its own position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from prognosis_dask.arrays import BoolArray, ByteArray, FloatArray, NumberArray
from prognosis_dask.cohort.masks import is_label_map
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_on, place, resample_nearest
from prognosis_dask.objects.files import RangeReader
from prognosis_dask.volumes.grid import Grid, steps_of

#: A voxel of a FRACTIONAL segment belongs to the mask from this fraction of the maximum.
FRACTION = 0.5
#: Frames this many times further apart than the image's slices leave slices out.
THICKER = 1.5

#: Tolerance (mm): frames closer than this lie in one plane, and distances and rows may differ by this much.
SAME_MM = 0.01


def seg_mask(dataset: Dataset, numbers: tuple[int, ...], grid: Grid, *, resample: bool) -> BoolArray:
    """The segments ``numbers``, merged (empty: the file's only segment).

    BINARY, FRACTIONAL (from a half on) and LABELMAP; frames in any order and orientation, with gaps, or beyond the
    image where they are empty. Frames on another grid than the image's are an error unless ``resample`` (nearest
    neighbour).

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column), of the grid's size.

    Raises
    ------
    CaseError
        ``ROI_NOT_FOUND``, ``ROI_AMBIGUOUS``, ``MASK_UNREADABLE``, ``MASK_EMPTY``, ``MASK_OTHER_GRID`` or
        ``MASK_OUTSIDE``.
    """
    wanted = numbers or _only(dataset)
    known = _segments(dataset)
    missing = [number for number in wanted if number not in known]
    if missing:
        raise CaseError(Code.ROI_NOT_FOUND, f"no segment {missing}; the file has {_listed(known)}")
    _expect_once(dataset, wanted)
    frames = _frames(dataset, wanted)
    mask: BoolArray = np.zeros(grid.size[::-1], dtype=bool)
    try:
        _check_spacing(frames, grid)
        for frame, pixels in _decoded(dataset, frames, wanted):
            block, where = place(pixels[None], frame.position, _frame_steps(frame, grid), grid)
            mask[where] |= block
    except CaseError as error:
        if not resample or error.problem.code is not Code.MASK_OTHER_GRID:
            raise
        mask = resample_nearest(stack_frames(_decoded(dataset, frames, wanted)), grid)
    if not mask.any():
        raise CaseError(Code.MASK_EMPTY, f"the segments {_listed(known, wanted)} hold no voxel")
    return mask


def _segments(dataset: Dataset) -> dict[int, str]:
    return {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in dataset.get("SegmentSequence") or ()}


def _expect_once(dataset: Dataset, wanted: tuple[int, ...]) -> None:
    numbers = [int(item.SegmentNumber) for item in dataset.get("SegmentSequence") or ()]
    for number in wanted:
        if numbers.count(number) > 1:
            raise CaseError(Code.ROI_AMBIGUOUS, f"{numbers.count(number)} segments have the number {number}")


def _only(dataset: Dataset) -> tuple[int, ...]:
    """The single segment; a LABELMAP also lists its background, as segment 0."""
    known = {number: label for number, label in _segments(dataset).items() if number}
    if len(known) != 1:
        raise CaseError(
            Code.ROI_AMBIGUOUS, f"no segment number is given and the file has {len(known)}: {_listed(known)}"
        )
    return tuple(known)


def _listed(known: dict[int, str], numbers: tuple[int, ...] = ()) -> str:
    return ", ".join(f"{number} ({known[number]})" for number in numbers or known) or "none"


def _frames(dataset: Dataset, wanted: tuple[int, ...]) -> list[Frame]:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        raise CaseError(Code.MASK_UNREADABLE, "the segmentation's frames have no positions (a tiled slide?)")
    any_segment = is_label_map(dataset) or len(dataset.SegmentSequence) == 1
    said, placed = int(dataset.get("NumberOfFrames") or 1), len(dataset.PerFrameFunctionalGroupsSequence)
    if said != placed:
        raise CaseError(
            Code.MASK_UNREADABLE, f"NumberOfFrames is {said}, and {placed} frames have a position: which are they?"
        )
    frames = []
    for index, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        number = _group("SegmentIdentificationSequence", own, shared).get("ReferencedSegmentNumber")
        if number is None and not any_segment:
            raise CaseError(
                Code.MASK_UNREADABLE,
                f"frame {index + 1} does not say which of the {len(dataset.SegmentSequence)} segments it belongs to",
            )
        if number is None or int(number) in wanted:
            frames.append(_frame(index, number, own, shared))
    return frames


def _group(name: str, own: Dataset, shared: Dataset) -> Dataset:
    """A functional group of one frame: its own, else the one that all frames share, else an empty one."""
    items = own.get(name) or shared.get(name) or [Dataset()]
    first: Dataset = items[0]
    return first


def _frame(index: int, number: int | None, own: Dataset, shared: Dataset) -> Frame:
    position = _group("PlanePositionSequence", own, shared).get("ImagePositionPatient")
    orientation = _group("PlaneOrientationSequence", own, shared).get("ImageOrientationPatient")
    measures = _group("PixelMeasuresSequence", own, shared)
    spacing = measures.get("PixelSpacing")
    if position is None or orientation is None or spacing is None:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"frame {index + 1} does not say where it lies (position {position}, orientation {orientation}, spacing "
            f"{spacing}); only segmentations in patient coordinates can be used",
        )
    cosines = np.array(orientation, dtype=np.float64)
    row, column = cosines[:3] * float(spacing[1]), cosines[3:] * float(spacing[0])
    between, thick = (float(measures.get(name) or 0) or None for name in ("SpacingBetweenSlices", "SliceThickness"))
    return Frame(index, int(number or 0), np.array(position, dtype=np.float64), row, column, between, thick)


def _check_spacing(frames: list[Frame], grid: Grid) -> None:
    """Refuse frames that are thicker than the image's slices.

    They would leave empty slices between them. Only the declared distance or thickness distinguishes them from frames
    with gaps.
    """
    if not frames or not len(frame_steps(frames)):
        return
    own_mm = float(np.linalg.norm(_frame_steps(frames[0], grid)[:, 2]))
    between_mm = frame_distance(frames)
    if between_mm is not None and between_mm > THICKER * own_mm:
        raise CaseError(
            Code.MASK_OTHER_GRID,
            f"the segmentation's frames are {between_mm:.3f} mm apart, the image's slices {own_mm:.3f} mm; "
            f"image.resample_mask = true resamples it (nearest neighbour)",
        )


def _decoded(dataset: Dataset, frames: list[Frame], wanted: tuple[int, ...]) -> Iterator[tuple[Frame, BoolArray]]:
    """Each frame with its mask; only these frames are decoded."""
    if not frames:
        return
    labels = is_label_map(dataset)
    whole = 0.0 if labels else _whole(dataset)
    binary: set[float] | None = set() if dataset.get("SegmentationType") != "FRACTIONAL" else None
    held: dict[tuple[float, ...], bytes] = {}
    try:
        for frame, values in zip(frames, _pixels(dataset, [f.index for f in frames]), strict=True):
            if not labels:
                _expect_meant(values, whole, frame, binary)
            mask = np.isin(values, wanted) if labels else np.greater_equal(values, FRACTION * whole)
            place = (frame.number, *np.rint(frame.position / SAME_MM).tolist())
            if mask.any() and held.setdefault(place, bits := np.packbits(mask).tobytes()) != bits:
                raise CaseError(
                    Code.ROI_AMBIGUOUS,
                    f"frame {frame.index + 1} lies where another one of its segment does, and holds other voxels: "
                    f"several time points or versions in one file? keep one of them",
                )
            yield frame, mask
    except CaseError:
        raise
    except Exception as error:  # decoders may raise anything
        raise CaseError(Code.MASK_UNREADABLE, f"cannot decode the segmentation's frames: {error}") from error


def _expect_meant(values: NumberArray, whole: float, frame: Frame, binary: set[float] | None) -> None:
    """Refuse shares of more than a whole, and different values of what is said to be zero or one.

    ``binary``: the values of such a file's frames before it, to which this frame's are added; None of shares.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE``.
    """
    most = float(values.max(initial=0))
    if binary is not None:
        # looked through only where there may be others than 0 and 1
        binary.update({*np.unique(values).tolist()} - {0} if most > whole else {most} - {0})
    if most > whole and (binary is None or len(binary) > 1):
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"frame {frame.index + 1} holds values up to {most:g}, and a voxel that lies entirely in its segment has "
            f"{whole:g}: what they mean is not known",
        )


def _whole(dataset: Dataset) -> float:
    """The stored value of a voxel that lies entirely in its segment."""
    kind = str(dataset.get("SegmentationType") or "")
    if kind == "BINARY" or (not kind and dataset.get("BitsAllocated") == 1):
        return 1.0
    whole = float(dataset.get("MaximumFractionalValue") or 0)
    if kind != "FRACTIONAL" or whole <= 0:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"SegmentationType is {kind or 'missing'} and MaximumFractionalValue {whole:g}: what its values mean is "
            f"not said; expected BINARY, LABELMAP, or FRACTIONAL with the value of a whole voxel",
        )
    return whole


def _pixels(dataset: Dataset, indices: list[int]) -> Iterator[NumberArray]:
    """The stored values of some frames.

    Frames of single bits are not padded, so one may start within a byte, where pydicom 3.0 cannot read it alone.
    """
    if dataset.BitsAllocated != 1 or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(dataset, indices=indices)
        return
    size = dataset.Rows * dataset.Columns
    stored = getattr(dataset, "stored_pixels", None)
    if stored is not None:
        stored.fetch([(index * size // 8, (index * size + size + 7) // 8) for index in indices])
    for index in indices:
        byte, skip = divmod(index * size, 8)
        stop = byte + (skip + size + 7) // 8
        content = dataset.PixelData[byte:stop] if stored is None else stored.read(byte, stop)
        packed = np.frombuffer(content, dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[skip : skip + size]
        yield bits.reshape(dataset.Rows, dataset.Columns)


@dataclass(frozen=True)
class StoredPixels:
    """The pixels of an object, of which only the frames that are needed are fetched.

    ``stream`` is the object, whose pixels begin at ``begin`` and take ``length`` bytes.
    """

    stream: RangeReader
    begin: int
    length: int

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """Fetch what lies between the first and the last byte of each group of neighbours, one request a group."""
        self.stream.fetch([(self.begin + first, self.begin + min(stop, self.length)) for first, stop in spans])

    def read(self, first: int, stop: int) -> bytes:
        """The bytes ``first`` to ``stop`` - 1 of the pixels."""
        self.stream.seek(self.begin + first)
        return self.stream.read(min(stop, self.length) - first)


def _frame_steps(frame: Frame, grid: Grid) -> FloatArray:
    """The frame's steps as columns; across the frame it has no extent, so the image's step is used."""
    across = np.cross(frame.row, frame.column)
    steps = steps_of(grid)
    along = across @ steps / np.linalg.norm(steps, axis=0)
    third = steps[:, np.abs(along).argmax()]
    return np.stack([frame.row, frame.column, third], axis=1)


@dataclass(frozen=True)
class Frame:
    """One frame of a requested segment: its index in the pixel data and the geometry of its pixels.

    ``number`` is the segment's; 0: of a label map, or where none is named.
    ``row`` and ``column`` are the vectors, in mm, from one column and from one row to the next. ``between_mm`` is the
    distance of the frames as the file declares it, ``thick_mm`` their thickness; None if it does not.
    """

    index: int
    number: int
    position: FloatArray
    row: FloatArray
    column: FloatArray
    between_mm: float | None
    thick_mm: float | None

    @property
    def normal(self) -> FloatArray:
        """Unit vector across the frame."""
        across = np.cross(self.row, self.column)
        unit: FloatArray = across / np.linalg.norm(across)
        return unit


def frame_distance(frames: Sequence[Frame]) -> float | None:
    """The distance of the file's frames: as declared, else their thickness; None if unknown.

    Files omit empty frames, so positions alone do not distinguish a gap from a thick slice.
    """
    steps = frame_steps(frames)
    declared = frames[0].between_mm or frames[0].thick_mm
    if declared is None or not len(steps):
        return declared
    return min(declared, float(steps.min()))


def frame_steps(frames: Sequence[Frame]) -> FloatArray:
    """The distances, in mm, between the planes that have a frame, in order along the first one's normal."""
    heights = np.sort([float(frame.position @ frames[0].normal) for frame in frames])
    steps: FloatArray = np.diff(heights)
    return steps[steps > SAME_MM]


def stack_frames(decoded: Iterable[tuple[Frame, BoolArray]]) -> sitk.Image:
    """The frames as one image of 0 and 1; those of one plane are merged, planes without a frame are empty.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE`` if the frames do not lie on one lattice, or their distance is unknown.
    """
    frames, pixels = (list(items) for items in zip(*decoded, strict=True))
    first = frames[0]
    normal = first.normal
    offsets = np.array([frame.position - first.position for frame in frames])
    heights = offsets @ normal
    step = _step(frames)
    places = (heights - heights.min()) / step
    planes = np.rint(places).astype(int)
    turned = max(max(np.abs(f.row - first.row).max(), np.abs(f.column - first.column).max()) for f in frames)
    sideways = np.abs(offsets - np.outer(heights, normal)).max()
    shapes = {frame.shape for frame in pixels}
    if np.abs(places - planes).max() * step > SAME_MM or max(turned, sideways) > SAME_MM or len(shapes) > 1:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"the segmentation's {len(frames)} frames are no stack {step:.3f} mm apart, which resampling needs: they "
            f"lie up to {np.abs(places - planes).max() * step:.3f} mm beside such planes, {sideways:.3f} mm beside "
            f"one line",
        )
    volume: ByteArray = np.zeros((int(planes.max()) + 1, *shapes.pop()), dtype=np.uint8)
    for plane, frame in zip(planes, pixels, strict=True):
        volume[plane] |= frame.astype(np.uint8)
    steps = np.stack([first.row, first.column, normal * step], axis=1)
    spacing = np.linalg.norm(steps, axis=0)
    origin = first.position + heights.min() * normal
    z, y, x = volume.shape
    return image_on(volume, Grid((x, y, z), tuple(spacing), tuple(origin), tuple((steps / spacing).ravel())))


def _step(frames: Sequence[Frame]) -> float:
    """The plane distance of the lattice: the declared one if the frames fit it, else the smallest one."""
    steps = frame_steps(frames)
    for declared in (frames[0].between_mm, frames[0].thick_mm):
        if declared and (np.abs(steps / declared - np.rint(steps / declared)) * declared <= SAME_MM).all():
            return declared
    if not len(steps):
        raise CaseError(
            Code.MASK_UNREADABLE,
            "the segmentation's frames lie in one plane, and its thickness is not given (SliceThickness): it cannot "
            "be resampled",
        )
    return float(steps.min())
