"""Load a case: image and mask on one grid, in known units."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray, NumberArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.series import SUFFIX, SeriesListing, read_listing
from prognosis_dask.cohort.stack import Run, usable_runs, wants_suv
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import CaseError, Code, count, expect_kind, warn
from prognosis_dask.imaging.gaps import settle_gaps
from prognosis_dask.imaging.geometry import image_on
from prognosis_dask.imaging.masks import read_mask, read_planes
from prognosis_dask.imaging.roi import Roi, bounding_box, span_with_margin
from prognosis_dask.imaging.series import read_slices, run_grid
from prognosis_dask.objects.address import is_address
from prognosis_dask.objects.files import as_local
from prognosis_dask.volumes.files import says_voxel_size, volume_grid, volume_voxels
from prognosis_dask.volumes.grid import Grid

#: Raised by one whenever the same files give other voxels or another mask, so that resume computes anew what was made
#: of them. Ledgers of before it hold digests without it.
READING = 6
SUV = "{SUVbw}g/mL"
#: Bounds of the largest SUV around a lesion: the background alone has 0.5 or so, urine and glands some hundred.
SUV_MOST = (0.05, 1000.0)
#: Less than this (HU) is no tissue and no air, even with noise: scanners write -2000 and less where they saw nothing.
LEAST_HU = -1500
#: More is no metal either, but a negative value without its sign.
MOST_HU = 32767
#: A slice that lies this many times further from the two beside it than others do, and this many HU, is unlike them;
#: in real series it was 5 times, and of blank slices 13; and how many slices tell what is usual.
UNLIKE, UNLIKE_HU, LEAST_STACK = 8.0, 150.0, 9
#: What is above this (HU) are fat, organs and bone, which some of each image is.
FAT_HU = -300
#: No CT of a body lies within this many HU of zero altogether.
NARROW_HU = 50
#: An image that ends at one of these (HU) or beyond was not cut off at a window for soft tissue.
CUT_HU = (-900, 1000)
#: Share and number of a mask's voxels that have the image's first or last value by chance at most, and levels of what
#: is no phantom.
CUT_SHARE, CUT_VOXELS, FEWEST_LEVELS = 0.01, 4, 50
#: Bounds of a voxel's sides (mm): beyond them a header gives them in metres or micrometres.
VOXEL_MM = (0.005, 50.0)
_UCUM = {"HU": "[hnsf'U]", "BQML": "Bq/mL", "GML": "g/mL", "CNTS": "{counts}"}


def load_case(case: Case, settings: ImageSection | None = None) -> tuple[sitk.Image, sitk.Image]:
    """Image and mask (0 and 1) of a case on one grid: the slices of the ROI and the margin around it.

    Raises
    ------
    CaseError
        As :func:`load_roi`.

    Examples
    --------
    >>> import numpy as np
    >>> from tempfile import TemporaryDirectory
    >>> ball = (((np.mgrid[:20, :20, :20] - 10) ** 2).sum(axis=0) < 36).astype(np.uint8)
    >>> with TemporaryDirectory() as folder:
    ...     for name, values in (("ct.nrrd", 1040.0 * ball - 1000), ("mask.nrrd", ball)):
    ...         sitk.WriteImage(sitk.GetImageFromArray(values), f"{folder}/{name}")
    ...     image, mask = load_case(Case("1", "P1", "CT", "ball", f"{folder}/ct.nrrd", f"{folder}/mask.nrrd", (1,)))
    >>> int(sitk.GetArrayFromImage(mask).sum()) == int(ball.sum())
    True
    """
    expect_kind(case, Case, "the case", "one of read_cases(...)")
    roi = load_roi(case, settings or ImageSection())
    return roi.image, roi.mask


def load_roi(
    case: Case,
    settings: ImageSection,
    *,
    full: bool = False,
    seconds: dict[str, float] | None = None,
    one_slice: bool = False,
) -> Roi:
    """Read a case's image and mask onto the image's grid.

    The slices have their full extent, so that frames can be cut from them
    (:func:`prognosis_dask.imaging.roi.make_frames`); :func:`prognosis_dask.imaging.roi.crop_roi` then cuts rows and
    columns too.

    Parameters
    ----------
    case
        Whose ``image`` is an image file or the listing of a DICOM series, and whose ``mask`` is an RTSTRUCT, a SEG or
        a label map.
    settings
        Margin, tolerance of gaps between slices, and whether a mask on another grid may be resampled.
    full
        Read every slice; else those that the mask spans, ``settings.margin_mm`` and
        :data:`~prognosis_dask.imaging.roi.SPLINE_TAIL_VOXELS` on either side.
    one_slice
        Whether a mask on a single slice is accepted.
    seconds
        Gains the seconds spent in ``read`` (headers and pixels) and ``rasterise`` (mask).

    Raises
    ------
    CaseError
        With the code of what is wrong with the image or the mask.
    """
    if not case.mask:
        raise CaseError(
            Code.MASK_EMPTY, "the case has no mask; only the stages brain and segment find a region without one"
        )
    spent = {} if seconds is None else seconds
    with _clock(spent, "read"):
        parts = _open(case, settings)
    with _clock(spent, "rasterise"):
        part, mask = _masked(parts, case, settings, one_slice=one_slice)
        grid = part.grid
        _expect_mm(grid, case.image)
        mask = _without_gaps(mask, case, settings, grid)
        first, stop = span_with_margin(bounding_box(mask)[0], grid.spacing[2], settings.margin_mm, grid.size[2])
        if full:
            first, stop = 0, grid.size[2]
        mask_image = image_on(mask[first:stop].astype(np.uint8), grid, (0, 0, first))
    with _clock(spent, "read"):
        image = part.read(first, stop)
        image.CopyInformation(mask_image)
        _check_finite(image, case.image)
        _expect_no_blank(image, mask_image, case.image)
        if case.modality == "CT":
            _expect_tissue(image, mask_image, case.image)
            _expect_continuous(image, mask_image, case.image)
        if part.unit == SUV:
            _expect_uptake(image, case.image)
    return Roi(image, mask_image, grid, (0, 0, first), part.unit)


def load_image(path: str, settings: ImageSection, *, etag: str = "") -> sitk.Image:
    """All slices of an image file or of a listed DICOM series; ``etag``: of a file in a bucket, what its store said.

    Raises
    ------
    CaseError
        With the code of the problem.
    """
    if path.endswith(SUFFIX):
        listing = read_listing(path)
        [run] = usable_runs(listing, settings, None)
        whole = _run_part(listing, run, settings)
    else:
        whole = _file_part(path, etag)
    image = whole.read(0, whole.grid.size[2])
    _check_finite(image, path)
    return image


@dataclass(frozen=True)
class _LoadedPart:
    """An image, or an evenly spaced part of one; ``read`` takes the first slice and one after the last."""

    grid: Grid
    read: Callable[[int, int], sitk.Image]
    unit: str = ""


def _open(case: Case, settings: ImageSection) -> list[_LoadedPart]:
    """The case's image: one part, or several if slices are missing and the mask's planes do not decide."""
    if not case.image.endswith(SUFFIX):
        return [_file_part(case.image, case.etag(case.image))]
    listing = read_listing(case.image)
    runs = usable_runs(listing, settings, lambda: read_planes(case.mask, case.labels, etag=case.mask_etag))
    return [_run_part(listing, run, settings) for run in runs]


def _file_part(path: str, etag: str) -> _LoadedPart:
    if not is_address(path):
        grid = volume_grid(Path(path))
        _expect_voxel_size(Path(path), path)
        return _LoadedPart(grid, partial(read_volume, Path(path), grid))
    with as_local(path, etag) as copy:
        try:
            grid = volume_grid(copy)
            _expect_voxel_size(copy, path)
            whole = read_volume(copy, grid, 0, grid.size[2])
        except CaseError as error:
            raise CaseError(error.problem.code, error.problem.reason, where=path) from error
    return _LoadedPart(grid, lambda first, stop: whole[:, :, first:stop])


def _expect_voxel_size(file: Path, where: str) -> None:
    """Warn of a header that says nothing of the size of voxels: sizes and textures rest on it."""
    if not says_voxel_size(file):
        reason = "its header gives no size of voxels: taken as 1 mm, as ITK does; write the spacing into it"
        warn(Code.VOXEL_SIZE, reason, where=where)


def _run_part(listing: SeriesListing, run: Run, settings: ImageSection) -> _LoadedPart:
    grid = run_grid(listing, run)

    def read(first: int, stop: int) -> sitk.Image:
        return image_on(read_values(listing, run.first + first, run.first + stop, settings), grid, (0, 0, first))

    return _LoadedPart(grid, read, unit_of(listing, settings))


def _masked(
    parts: list[_LoadedPart], case: Case, settings: ImageSection, *, one_slice: bool
) -> tuple[_LoadedPart, BoolArray]:
    """The first part that contains the whole mask, and the mask on it."""
    for number, part in enumerate(parts, start=1):
        try:
            mask = read_mask(
                case.mask,
                case.labels,
                part.grid,
                resample=settings.resample_mask,
                threshold=settings.mask_threshold,
                one_slice=one_slice,
                etag=case.mask_etag,
            )
            return part, mask
        except CaseError as error:
            beside = error.problem.code in (Code.MASK_OUTSIDE, Code.MASK_EMPTY)
            if len(parts) == 1 or not beside:
                raise
            if number == len(parts):
                reason = (
                    f"none of the series' {number} evenly spaced parts contains the whole mask: it reaches into a gap"
                )
                raise CaseError(Code.SLICE_GAP, reason, where=case.mask) from error
    raise AssertionError("an image has a part")


def _without_gaps(mask: BoolArray, case: Case, settings: ImageSection, grid: Grid) -> BoolArray:
    return settle_gaps(mask, grid, fill=settings.fill_gaps, keep=settings.keep_gaps, where=case.mask)


def _check_finite(image: sitk.Image, where: str) -> None:
    values = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(values.dtype, np.floating):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise CaseError(
                Code.IMAGE_INVALID,
                f"voxels that are not finite: {bad} of {values.size}; replace them before indexing",
                where=where,
            )


def _expect_mm(grid: Grid, where: str) -> None:
    if not VOXEL_MM[0] <= min(grid.spacing) <= max(grid.spacing) <= VOXEL_MM[1]:
        sides = " x ".join(f"{side:g}" for side in grid.spacing)
        warn(Code.VOXEL_SIZE, f"its header gives voxels of {sides} mm: is it in another unit?", where=where)


def _expect_no_blank(image: sitk.Image, mask: sitk.Image, where: str) -> None:
    """Warn of slices with a single value between others, as where the pixels were lost on the way."""
    values = sitk.GetArrayViewFromImage(image)
    drawn = np.flatnonzero(sitk.GetArrayViewFromImage(mask).any(axis=(1, 2)))
    blank = [index for index in drawn.tolist() if (values[index] == values[index, 0, 0]).all()]
    if 0 < len(blank) < len(drawn):
        reason = f"{len(blank)} of the {count(len(drawn), 'slice')} of the mask have one value everywhere: were pixels "
        warn(Code.IMAGE_INVALID, f"{reason}lost? Used as they are", where=where)


def _expect_continuous(image: sitk.Image, mask: sitk.Image, where: str) -> None:
    """Warn of a slice of the mask that is unlike those beside it, as where slope or intercept are another one's."""
    step = max(1, min(image.GetSize()[:2]) // 64)
    values = sitk.GetArrayViewFromImage(image)[:, ::step, ::step].astype(np.float32)
    if len(values) < LEAST_STACK:
        return
    apart = np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2).mean(axis=(1, 2))
    usual, worst = float(np.median(apart)), int(apart.argmax())
    most = float(apart[worst])
    if most > max(UNLIKE * usual, UNLIKE_HU) and sitk.GetArrayViewFromImage(mask)[worst + 1].any():
        reason = (
            f"a slice of the mask lies {most:.0f} HU on average from the two beside it, where {usual:.0f} is usual: "
        )
        warn(Code.IMAGE_INVALID, f"{reason}is it damaged, or rescaled otherwise? Used as it is", where=where)


def _expect_tissue(image: sitk.Image, mask: sitk.Image, where: str) -> None:
    """Warn of a CT whose values are no Hounsfield units or were cut off, and of a mask on what is no tissue."""
    values = sitk.GetArrayViewFromImage(image)
    least, most = float(values.min()), float(values.max())
    inside = values[sitk.GetArrayViewFromImage(mask) > 0]
    doubt = _doubt_of_hu(values, inside, least, most)
    if doubt:
        warn(Code.IMAGE_UNITS, f"{doubt}: are these Hounsfield units?", where=where)
    elif least > CUT_HU[0] or most < CUT_HU[1]:
        _expect_uncut(inside, least, most, where)
    _expect_scanned(inside, where)


def _doubt_of_hu(values: NumberArray, inside: NumberArray, least: float, most: float) -> str:
    if least >= 0:
        return f"no value of this CT is below {least:g}, not even of air"
    if least < LEAST_HU and float(np.greater(values, FAT_HU).mean()) < CUT_SHARE:
        # as a wrist's in a wide field of view that is padded beyond the scanned circle, unless the mask is as low
        scanned = inside[np.greater_equal(inside, LEAST_HU)]
        if scanned.size and np.median(scanned) < FAT_HU:
            seen = f"hardly a value of this CT is above {FAT_HU}, and the least is {least:g}"
            return f"{seen}, as where -1024 is added twice"
    if least > -NARROW_HU and most < NARROW_HU:
        return f"the values of this CT go from {least:g} to {most:g}"
    return ""


def _expect_scanned(inside: NumberArray, where: str) -> None:
    """Warn of a mask that reaches beyond what was scanned."""
    nothing = int(np.count_nonzero(np.less(inside, LEAST_HU) | np.greater(inside, MOST_HU)))
    if nothing:
        seen = f"below {LEAST_HU} or above {MOST_HU} HU"
        reason = f"{count(nothing, 'voxel')} of the mask {seen}, which is neither tissue nor air nor metal: does it "
        warn(Code.MASK_OUTSIDE, f"{reason}reach beyond what was scanned? Used as they are", where=where)


def _expect_uncut(inside: NumberArray, least: float, most: float, where: str) -> None:
    """Warn of values in a mask that stand for others beyond a window."""
    if len(np.unique(inside)) < FEWEST_LEVELS:
        return
    for end, value, is_cut in (("least", least, least > CUT_HU[0]), ("largest", most, most < CUT_HU[1])):
        cut = int(np.count_nonzero(np.equal(inside, value)))
        if is_cut and cut > max(CUT_VOXELS, CUT_SHARE * inside.size):
            reason = f"{cut / inside.size:.0%} of the mask's voxels have the image's {end} value, {value:g}: "
            warn(Code.IMAGE_UNITS, f"{reason}was it cut off at a window? Used as it is", where=where)


def _expect_uptake(image: sitk.Image, where: str) -> None:
    """Warn of SUVs that no tissue has: the units, the dose or the weight in the headers are wrong."""
    most = sitk.GetArrayViewFromImage(image).max()
    if not SUV_MOST[0] <= most <= SUV_MOST[1]:
        reason = f"the largest SUV here is {most:.3g}, which no body has: are Units, dose and weight right?"
        warn(Code.IMAGE_UNITS, reason, where=where)


@contextmanager
def _clock(seconds: dict[str, float], step: str) -> Iterator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - begun


def read_values(listing: SeriesListing, first: int, stop: int, settings: ImageSection) -> NumberArray:
    """The slices ``first`` to ``stop`` - 1 in the unit given by :func:`unit_of`, (slice, row, column).

    Raises
    ------
    CaseError
        As :func:`~prognosis_dask.imaging.series.read_slices`.
    """
    pixels = read_slices(listing, first, stop)
    factors = np.array([one.suv_factor for one in listing.slices[first:stop]], dtype=np.float64)
    if not wants_suv(listing, settings) or (factors == 1).all():
        return pixels
    return pixels.astype(np.float64) * factors[:, None, None]


def unit_of(listing: SeriesListing, settings: ImageSection) -> str:
    """The unit of the series' values in UCUM notation; MR's is arbitrary, and empty means unknown."""
    if wants_suv(listing, settings):
        return SUV
    if listing.modality == "MR":
        return "[arb'U]"
    return _UCUM.get(listing.units, f"{{{listing.units}}}" if listing.units else "")


def read_volume(path: Path, grid: Grid, first: int, stop: int) -> sitk.Image:
    """The slices ``first`` to ``stop`` - 1 of an image file on its grid, in its own pixel type.

    Raises
    ------
    CaseError
        As :func:`prognosis_dask.volumes.files.volume_voxels`.
    """
    return image_on(volume_voxels(path, first, stop), grid, (0, 0, first))
