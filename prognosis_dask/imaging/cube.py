"""A cube around the region of interest, in mm: the input of networks that read volumes.

Values are linear between the image's voxels. Nothing is smoothed before, also where the cube's spacing is coarser than
the image's: the networks that read such cubes were trained on cubes without smoothing. A value depends on the image
alone, not on how much of it a crop holds: positions are computed in the full image's indices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray, Float32Array, FloatArray, NumberArray
from prognosis_dask.config.fields import Above, AtLeast, Unit, Window
from prognosis_dask.config.reading import expect
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.volumes.grid import Grid, steps_of

#: Patient axis (x, y, z of DICOM, in mm) and sign of each letter.
_LETTERS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
#: Positions closer than this, in voxels, are the same: rounding must not decide what lies on a border.
_SAME = 1e-6


class _Three:
    expected = "three numbers"

    def holds(self, value: tuple[float, ...]) -> bool:
        return len(value) == 3


@dataclass(frozen=True)
class _Axes:
    none: bool = False

    @property
    def expected(self) -> str:
        return "one letter of each pair L R, P A, S I" + (", or nothing" if self.none else "")

    def holds(self, value: str) -> bool:
        known = len(value) == 3 and all(letter in _LETTERS for letter in value)
        return (self.none and not value) or (known and {_LETTERS[letter][0] for letter in value} == {0, 1, 2})


@dataclass(frozen=True)
class VolumeRule:
    """Grid and grey levels of a network's input, in the order of the network's axes (slice, row, column for most)."""

    voxels: Annotated[tuple[Annotated[int, AtLeast(1)], ...], _Three(), "Voxels along each axis."]
    spacing_mm: Annotated[
        tuple[Annotated[float, Above(0)], ...], _Three(), Unit("mm"), "Distance of voxels along each axis."
    ]
    intensity: Annotated[
        Literal["window", "zscore", "keep"],
        "`window`: clipped to `window` and scaled to 0 to 1; `zscore`: mean 0 and standard deviation 1 within the "
        "cube (of a network that reads the whole image, within that), clipped before where there is a window; `keep`: "
        "as in the image.",
    ]
    outside: Annotated[
        float, "Grey level of what lies outside the image, in the image's units, before `intensity` acts."
    ]
    window: Annotated[tuple[float, ...], Window(), "Lowest and highest grey level in the image's units."] = ()
    orientation: Annotated[
        str,
        _Axes(),
        "Direction in which each axis grows: L or R, P or A, S or I (left, right, posterior, anterior, superior, "
        "inferior). `SPL`: slices upwards, rows to the back, columns to the patient's left.",
    ] = "SPL"
    axes: Annotated[
        Literal["patient", "image"], "Axes along the patient's, or along the image's that are closest to them."
    ] = "patient"

    def check(self, where: str) -> None:
        """Refuse a rule of which two keys do not fit.

        Raises
        ------
        JobError
            Naming the key; ``where`` is what the message begins with.
        """
        needed = self.intensity != "window" or bool(self.window)
        expect(needed, where, "window", self.window, "two numbers, where intensity is 'window'")


@dataclass(frozen=True)
class CubeRule(VolumeRule):
    """How a cube around a region is cut."""

    centre: Annotated[
        Literal["centroid", "box", "image"],
        "The cube's middle: the centroid of the region, the middle of its bounding box, or the middle of the image.",
    ] = "centroid"
    lattice: Annotated[
        str,
        _Axes(none=True),
        "Empty: the middle lies exactly there. Else voxels are those of the whole image at the new spacing, counted "
        "from the corner that is first in these directions, and the middle is cut to a whole voxel, as MONAI does.",
    ] = ""
    mask: Annotated[
        Literal["none", "channel", "background"],
        "`channel`: the mask is a second channel; `background`: what is not in the mask is `outside`.",
    ] = "none"

    @property
    def channels(self) -> int:
        """Channels of the cube."""
        return 2 if self.mask == "channel" else 1


@dataclass(frozen=True)
class Cube:
    """A cube, ready for its network.

    Attributes
    ----------
    values
        (channel, *voxels), float32.
    first_mm
        Where the centre of the first voxel lies (x, y, z).
    steps
        (3, 3), mm: columns are the vectors from one voxel to the next along each axis of the cube.
    cut
        The share of the region's voxels that lie beyond the cube.
    outside
        The share of the cube's voxels that lie outside the image.
    """

    values: Float32Array
    first_mm: FloatArray
    steps: FloatArray
    cut: float
    outside: float


def cut_cube(roi: Roi, rule: CubeRule, read_full: Callable[[], Roi]) -> Cube:
    """Cut the cube of a region.

    Parameters
    ----------
    roi
        Image and mask, or a crop of them that holds the whole mask.
    rule
        How the cube is cut.
    read_full
        Reads the full image and mask; called only where the cube reaches beyond the crop.

    Raises
    ------
    CaseError
        ``MASK_EMPTY`` where there is no region, or none is left of one that the network is shown; ``IMAGE_INVALID``
        where the cube holds what is no finite number, or nothing but one grey level of which a z-score is to be made.
    """
    held = np.argwhere(sitk.GetArrayViewFromImage(roi.mask))[:, ::-1] + np.array(roi.start)
    if not len(held):
        raise CaseError(Code.MASK_EMPTY, "the mask has no voxel; expected the region that the cube is cut around")
    place = _placed(roi.full, _middle(held, roi.full, rule), rule)
    if not _holds(roi, place):
        roi = read_full()
    grey, inside = _sampled(roi, place)
    grey[~inside] = rule.outside
    shown = inside
    mask = _nearest(roi, place) & inside if rule.mask != "none" else inside
    if rule.mask != "none" and not mask.any():
        size = " x ".join(f"{mm:g}" for mm in rule.spacing_mm)
        raise CaseError(
            Code.MASK_EMPTY,
            f"of the region's {len(held)} voxels none is left in the network's cube of {size} mm voxels; expected a "
            "region that is larger, or lies where the cube is",
        )
    if rule.mask == "background":
        grey[~mask] = rule.outside
        shown = mask
    values = [_intensity(grey, grey[shown], rule)]
    if rule.mask == "channel":
        values.append(mask.astype(np.float32))
    own = np.linalg.solve(place.index, (held - place.first_index).T)
    beyond = (own < -0.5 - _SAME) | (own > np.array(rule.voxels)[:, None] - 0.5 + _SAME)
    return Cube(
        values=np.stack(values),
        first_mm=place.first_mm,
        steps=place.steps,
        cut=float(beyond.any(axis=0).mean()),
        outside=float(1 - inside.mean()),
    )


@dataclass(frozen=True)
class _Place:
    """Where a cube lies.

    ``first_index`` and ``index`` are ``first_mm`` and ``steps`` in (x, y, z) indices of the full image. ``within``: for
    each axis of the cube which of its indices, first and last, lie in the image; None: what is at most half a voxel of
    the image beyond its outermost voxel centres.
    """

    voxels: tuple[int, ...]
    first_mm: FloatArray
    steps: FloatArray
    first_index: FloatArray
    index: FloatArray
    within: FloatArray | None


def _middle(held: NumberArray, full: Grid, rule: CubeRule) -> FloatArray:
    """The cube's middle as (x, y, z) indices of the full image."""
    if rule.centre == "image":
        return (np.array(full.size) - 1) / 2
    if rule.centre == "box":
        return np.asarray((held.min(axis=0) + held.max(axis=0)) / 2)
    return np.asarray(held.sum(axis=0) / len(held))


def _placed(full: Grid, middle: FloatArray, rule: CubeRule) -> _Place:
    spacing, voxels = np.array(rule.spacing_mm), np.array(rule.voxels)
    directions = _directions(rule, full)
    middle_mm = np.asarray(full.origin) + steps_of(full) @ middle
    within = None
    if rule.lattice:
        low, count = _lattice(full, directions, rule)
        # from the lattice's first voxel in the cube's directions to the middle, cut to whole voxels
        at = np.floor((directions.T @ middle_mm - low) / spacing + _SAME)
        start = at - voxels // 2
        if rule.centre == "image":
            start = np.where(count >= voxels, count // 2 - voxels // 2, -((voxels - count) // 2))
        first_mm = directions @ (low + start * spacing)
        within = np.stack([-start, count - 1 - start])
    else:
        first_mm = middle_mm - directions @ (spacing * (voxels - 1) / 2)
    steps = directions * spacing
    own = steps_of(full)
    return _Place(
        rule.voxels,
        first_mm,
        steps,
        np.linalg.solve(own, first_mm - np.asarray(full.origin)),
        np.linalg.solve(own, steps),
        within,
    )


def whole_volume(image: sitk.Image, rule: VolumeRule) -> sitk.Image:
    """All of an image on a network's grid, which begins at the image's corner, with the network's grey levels.

    Values are linear between the image's voxels. The grid covers every voxel's centre, and is as large as one patch of
    the rule's ``voxels`` at least.

    Returns
    -------
    SimpleITK.Image
        float32; its array's axes are the network's.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID`` where the image holds what is no finite number, or one grey level of which a z-score is made.
    """
    full, spacing = grid_of(image), np.array(rule.spacing_mm)
    directions = _directions(rule, full)
    low, high = _spanned(full, directions)
    count = np.maximum(np.ceil((high - low) / spacing - _SAME).astype(int) + 1, rule.voxels)
    made = sitk.Resample(
        sitk.Cast(image, sitk.sitkFloat32),
        count[::-1].tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        (directions @ low).tolist(),
        spacing[::-1].tolist(),
        directions[:, ::-1].ravel().tolist(),
        rule.outside,
    )
    values = _intensity(sitk.GetArrayViewFromImage(made), sitk.GetArrayViewFromImage(image), rule)
    return image_like(values, made)


def _directions(rule: VolumeRule, full: Grid) -> FloatArray:
    """(3, 3): columns are the unit vectors (mm) of the orientation's letters."""
    patient = np.eye(3)
    if rule.axes == "image":
        own = np.asarray(full.direction).reshape(3, 3)
        order = max(itertools.permutations(range(3)), key=lambda to: sum(abs(own[i, to[i]]) for i in range(3)))
        patient = np.stack([own[:, to] * (np.sign(own[i, to]) or 1.0) for i, to in enumerate(order)], axis=1)
    return np.stack([patient[:, _LETTERS[letter][0]] * _LETTERS[letter][1] for letter in rule.orientation], axis=1)


def _lattice(full: Grid, directions: FloatArray, rule: CubeRule) -> tuple[FloatArray, FloatArray]:
    """Of the whole image at the new spacing the first voxel along each direction (mm), and how many there are."""
    low, high = _spanned(full, directions)
    spacing = np.array(rule.spacing_mm)
    count = np.round((high - low) / spacing) + 1
    axes = {_LETTERS[letter][0]: letter for letter in rule.lattice}
    same = np.array([axes[_LETTERS[letter][0]] == letter for letter in rule.orientation])
    return np.where(same, low, high - (count - 1) * spacing), count


def _spanned(full: Grid, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From where to where the image's voxel centres reach along each direction, in mm."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in full.size))))
    along = (np.asarray(full.origin) + corners @ steps_of(full).T) @ directions
    return along.min(axis=0), along.max(axis=0)


def _holds(roi: Roi, place: _Place) -> bool:
    """Whether all of the image that the cube shows is here."""
    corners = np.array(list(itertools.product(*((0, number - 1) for number in place.voxels))))
    at = place.first_index + corners @ place.index.T
    last = np.array(roi.full.size) - 1
    low = np.clip(np.floor(at.min(axis=0) - _SAME), 0, last)
    high = np.clip(np.floor(at.max(axis=0) + _SAME) + 1, 0, last)
    start = np.array(roi.start)
    return bool((low >= start).all() and (high < start + roi.image.GetSize()).all())


def _sampled(roi: Roi, place: _Place) -> tuple[FloatArray, BoolArray]:
    """Grey levels by linear interpolation, and which of them lie in the image."""
    image = sitk.GetArrayViewFromImage(roi.image)
    grey, inside = np.empty(place.voxels), np.empty(place.voxels, bool)
    last = np.array(roi.full.size) - 1
    for number in range(place.voxels[0]):
        at = _positions(place, number)
        inside[number] = _inside(at, last, place, number)
        values: FloatArray | float = 0.0
        below = [np.floor(np.clip(x, 0, end)).astype(np.intp) for x, end in zip(at, last, strict=True)]
        part = [np.clip(x, 0, end) - first for x, first, end in zip(at, below, last, strict=True)]
        for corner in itertools.product((0, 1), repeat=3):
            weight = np.prod([p if one else 1 - p for p, one in zip(part, corner, strict=True)], axis=0)
            x, y, z = (
                np.minimum(first + one, end) - start
                for first, one, end, start in zip(below, corner, last, roi.start, strict=True)
            )
            values = values + weight * image[z, y, x]
        grey[number] = values
    return grey, inside


def _nearest(roi: Roi, place: _Place) -> BoolArray:
    """Where the image's voxel that is nearest is set in the mask."""
    mask = sitk.GetArrayViewFromImage(roi.mask)
    last = np.array(roi.full.size) - 1
    found = np.empty(place.voxels, bool)
    for number in range(place.voxels[0]):
        x, y, z = (
            np.clip(np.floor(c + 0.5 + _SAME), 0, end).astype(np.intp) - start
            for c, end, start in zip(_positions(place, number), last, roi.start, strict=True)
        )
        found[number] = mask[z, y, x] != 0
    return found


def _positions(place: _Place, number: int) -> list[FloatArray]:
    """(x, y, z) indices in the full image of one slice of the cube, each an array (row, column)."""
    rows, columns = np.arange(place.voxels[1])[:, None], np.arange(place.voxels[2])
    return [
        place.first_index[axis]
        + place.index[axis, 0] * number
        + place.index[axis, 1] * rows
        + place.index[axis, 2] * columns
        for axis in range(3)
    ]


def _inside(at: list[FloatArray], last: NumberArray, place: _Place, number: int) -> BoolArray:
    if place.within is None:
        near = [(x >= -0.5 - _SAME) & (x <= end + 0.5 + _SAME) for x, end in zip(at, last, strict=True)]
        return np.asarray(near[0] & near[1] & near[2])
    (low, _, _), (high, _, _) = place.within
    rows, columns = (
        (np.arange(place.voxels[axis]) >= place.within[0, axis])
        & (np.arange(place.voxels[axis]) <= place.within[1, axis])
        for axis in (1, 2)
    )
    return np.asarray((low <= number <= high) & rows[:, None] & columns)


def _intensity(grey: FloatArray, values: NumberArray, rule: VolumeRule) -> Float32Array:
    """Clipped and scaled; a z-score by mean and deviation of the ``values``."""
    bad = grey.size - np.count_nonzero(np.isfinite(grey))
    if bad:
        raise CaseError(
            Code.IMAGE_INVALID, f"voxels of the input that are not finite: {bad} of {grey.size}; expected numbers"
        )
    if rule.window:
        grey = np.clip(grey, rule.window[0], rule.window[1])
    if rule.intensity == "window":
        grey = (grey - rule.window[0]) / (rule.window[1] - rule.window[0])
    if rule.intensity == "zscore":
        values = values.astype(float)  # whole numbers of few bits have no range as wide as theirs
        values = np.clip(values, rule.window[0], rule.window[1]) if rule.window else values
        if not values.size or np.ptp(values) <= _SAME * np.abs(values).max():
            raise CaseError(
                Code.IMAGE_INVALID,
                f"{values.size} voxels of the input are in the image, all of one grey level; a z-score needs several",
            )
        grey = (grey - values.mean()) / values.std()
    return grey.astype(np.float32)
