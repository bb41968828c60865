"""Prepare a patient's sequences: stripped, corrected, registered to one grid, with comparable intensities; and checked.

The quality of a stripped brain is measured, and implausible images and brains are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import FloatArray
from prognosis_dask.brain.intensity import around, correct_bias, nyul, smooth, white_matter, within, zscore
from prognosis_dask.brain.orient import (
    fitted_anew,
    meaning,
    shared_by_turn,
    turn_by_boundary,
    turned,
    turns,
    usual_turns,
)
from prognosis_dask.brain.register import distance_outside, mutual_information, points_of, rigid
from prognosis_dask.brain.strip import (
    Stripped,
    aligned,
    carried_distance,
    settle_strip,
    strip,
    strip_with,
    stripped_before,
)
from prognosis_dask.brain.template import Contrast, icbm152
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like, one_thread

#: Known sequences, the most reliable for skull stripping first.
SEQUENCES = ("T1", "T1c", "FLAIR", "T2")
#: Largest movement of the head between two sequences of a session, mm and degrees, and their least mutual information,
#: nats.
MOST_MOVED_MM, MOST_TURNED_DEG, LEAST_SHARED = 40.0, 30.0, 0.1


@dataclass(frozen=True)
class Preprocessed:
    """The result of :func:`preprocess` for a patient's sequences.

    Attributes
    ----------
    images
        By sequence, float32, all on the reference sequence's grid: bias corrected, normalised, zero outside the brain.
    brain_mask
        uint8, 0 and 1, on the same grid.
    to_template
        From points of the reference sequence to points of the ICBM152 template, mm. SimpleITK needs its inverse to
        resample the patient onto the template's grid.
    quality
        Figures of the brain (:func:`prognosis_dask.brain.preprocess.quality`), and per other sequence how far the head
        moved (``moved_mm_T1``) and the mutual information after registration (``shared_T1``).
    stripped_before
        Whether the images came without skull.
    """

    images: Mapping[str, sitk.Image]
    brain_mask: sitk.Image
    to_template: sitk.Transform
    quality: Mapping[str, float]
    stripped_before: bool


def preprocess(
    sequences: Mapping[str, sitk.Image], settings: BrainSection, *, reference: str | None = None
) -> Preprocessed:
    """Strip the skull, correct the bias field, bring all sequences onto one grid, normalise.

    The skull is stripped on the most reliable sequence (T1 before T1c, FLAIR, T2), and the brain mask is transferred to
    the others by rigid registration. One thread; the same input gives the same values.

    Parameters
    ----------
    sequences
        By name: ``T1``, ``T1c``, ``T2``, ``FLAIR``, or another, which is treated like T1.
    settings
        The job's section ``[brain]``.
    reference
        The sequence on whose grid all are resampled; by default the first.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID``, ``IMAGE_EMPTY`` or ``VOXEL_SIZE`` for a sequence that is none; ``BRAIN_NOT_FOUND`` where no
        plausible brain is found; ``ORIENTATION`` where there is one, but turned against what the header says;
        ``SEQUENCES_APART`` where two sequences do not show the same head.
    MissingExtraError
        When ``settings.skull_strip`` names a program that is not installed.
    """
    if not sequences:
        raise ValueError("no sequences")
    main = reference or next(iter(sequences))
    settings = settle_strip(settings)
    with one_thread():
        for name, image in sequences.items():
            check_sequence(name, image)
        images = {name: _positive(image) for name, image in sequences.items()}
        clear = min(images, key=lambda name: SEQUENCES.index(name) if name in SEQUENCES else len(SEQUENCES))
        stripped, figures = _strip(clear, images[clear], settings)
        moved = {name: _moved(name, images, clear, figures) for name in images}
        brain = _resampled(stripped.brain, images[main], moved[main].GetInverse())
        if not sitk.GetArrayViewFromImage(brain).any():
            raise CaseError(Code.SEQUENCES_APART, f"the brain found on {clear} lies outside {main}; leave one out")
        finished = {}
        for name, image in images.items():
            corrected = _corrected(image, stripped, moved[name]) if settings.bias_field else image
            from_main = sitk.CompositeTransform([moved[name], moved[main].GetInverse()])
            same = name == main
            corrected = corrected if same else _resampled(corrected, images[main], from_main, sitk.sitkLinear)
            finished[name] = _normalised(corrected, brain, kind_of(name), settings)
    to_template = sitk.CompositeTransform([stripped.from_template.GetInverse(), moved[main].GetInverse()])
    return Preprocessed(finished, brain, to_template, figures, stripped.stripped_before)


def kind_of(name: str) -> Contrast:
    """The template's contrast that resembles the sequence."""
    kinds: dict[str, Contrast] = {"T2": "t2", "FLAIR": "flair"}
    return kinds.get(name, "t1")


def _positive(image: sitk.Image) -> sitk.Image:
    """As float32 with minimum zero: scanners and converters add offsets, which a logarithm does not allow."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    least = float(sitk.GetArrayViewFromImage(image).min())
    return image - least if least < 0 else image


def _strip(name: str, image: sitk.Image, settings: BrainSection) -> tuple[Stripped, dict[str, float]]:
    kind = kind_of(name)
    before = stripped_before(image)
    if before is not None:
        stripped = strip(image, kind, bias_field=settings.bias_field)
    elif settings.skull_strip == "none":
        raise CaseError(
            Code.BRAIN_NOT_FOUND,
            f"{name} shows more than a brain, but brain.skull_strip is 'none'; set it to 'template'",
        )
    else:
        stripped = _strip_by(settings.skull_strip, image, kind, settings)
    figures = quality(image, stripped, kind)
    # a template that did not fit gives no brain to rotate
    fit = figures["boundary_fit"]
    lies = turn_by_boundary(image, kind, fit) if fit < LEAST_FIT else ""
    lies = lies or turned_against_header(image, stripped, kind, figures)
    if lies:
        raise CaseError(
            Code.ORIENTATION,
            f"the head in {name} seems to lie {lies}, against what its header says; correct the file's orientation",
        )
    if settings.compare_with and before is None:
        figures["agreement"] = agreement(stripped.brain, _strip_by(settings.compare_with, image, kind, settings).brain)
    said = implausible(figures, name)
    if said:
        raise refuse(name, said)
    return stripped, figures


def _strip_by(method: str, image: sitk.Image, kind: Contrast, settings: BrainSection) -> Stripped:
    if method == "template":
        return strip(image, kind, bias_field=settings.bias_field)
    return aligned(image, strip_with(method, image), kind, stripped_before=False)


def _moved(name: str, images: Mapping[str, sitk.Image], clear: str, figures: dict[str, float]) -> sitk.Transform:
    """From points of the stripped sequence to points of another one."""
    if name == clear:
        return sitk.Euler3DTransform()
    turn, shared = rigid(images[clear], images[name])
    centre = np.asarray(turn.GetCenter())
    moved_mm = float(np.linalg.norm(np.asarray(turn.TransformPoint(centre.tolist())) - centre))
    figures |= {f"moved_mm_{name}": moved_mm, f"shared_{name}": shared}
    turned = max(abs(np.degrees(angle)) for angle in (turn.GetAngleX(), turn.GetAngleY(), turn.GetAngleZ()))
    if moved_mm > MOST_MOVED_MM or turned > MOST_TURNED_DEG or shared < LEAST_SHARED:
        raise CaseError(
            Code.SEQUENCES_APART,
            f"{name} and {clear} do not show the same head: {moved_mm:.0f} mm and {turned:.0f} degrees apart, mutual "
            f"information {shared:.2f}; expected up to {MOST_MOVED_MM:g} mm, {MOST_TURNED_DEG:g} degrees and at least "
            f"{LEAST_SHARED:g}. Leave one out with brain.sequences",
        )
    return turn


def _corrected(image: sitk.Image, stripped: Stripped, turn: sitk.Transform) -> sitk.Image:
    """The image without its bias field, estimated on white matter."""
    brain = _resampled(stripped.brain, image, turn.GetInverse())
    into = sitk.CompositeTransform([turn, stripped.from_template])
    mask = white_matter(image, brain, into)
    return correct_bias(image, mask)[0] if sitk.GetArrayViewFromImage(mask).any() else image


def _normalised(image: sitk.Image, brain: sitk.Image, kind: Contrast, settings: BrainSection) -> sitk.Image:
    if settings.smooth_fwhm_mm:
        image = smooth(image, settings.smooth_fwhm_mm)
    if settings.normalise == "zscore":
        return zscore(image, brain)
    return nyul(image, brain, kind) if settings.normalise == "nyul" else within(image, brain)


def _resampled(
    image: sitk.Image, grid: sitk.Image, transform: sitk.Transform, interpolator: int = sitk.sitkNearestNeighbor
) -> sitk.Image:
    return sitk.Resample(image, grid, transform, interpolator, 0.0)


#: Volume of a brain with its fluid, litres; the minimum is scaled by the imaged part.
VOLUME_L = (0.75, 2.4)
#: Least share of the template's brain inside the image.
LEAST_COVERAGE = 0.25
#: Least Dice of the brain found and the template's, within the image.
LEAST_OVERLAP = 0.8
#: Bounds of a brain's size relative to the template's, as the cube root of the volumes' ratio.
SCALE = (0.75, 1.12)
#: Least mutual information with the template inside the brain, nats. Real heads had 0.08 to 0.25, noise 0.003, and a
#: head upside down 0.02.
LEAST_SHARED_TEMPLATE = 0.04
#: The orientation is accepted if mutual information with the template exceeds that of any rotation by this factor; else
#: both are fitted more carefully.
CLEAR_TURN = 1.15
#: How far around the brain's mask the orientations are compared where the mask has the template's shape, mm.
_AROUND_MM = 15.0
#: Mutual information with the template from which such a mask is not that of a turned head, nats. Two real heads turned
#: a quarter had 0.06 and 0.11, and 0.14 and 0.24 as they lie; a right FLAIR had 0.10.
_CLEAR_SHARED = 0.1
#: Least Dice of the masks of two methods. Right ones had 0.93 to 0.98; 5 mm too small 0.82, too large 0.90 to 0.92.
LEAST_AGREEMENT = 0.9
#: Least contrast of the brain's edge (see :mod:`prognosis_dask.brain.register`).
LEAST_FIT = 0.3

#: Depth in the template's brain from which what the mask lacks counts, and distance outside from which what it holds
#: does, mm; and the most of each that is accepted, ml.
FAR_MM = 8.0
MOST_MISSING_ML, MOST_BEYOND_ML = 20.0, 20.0
#: Accepted distances from the mask to the skull, mm. Masks of eight real T1, T1c and FLAIR had -0.8 to 1.2, the same
#: masks 5 mm smaller 5.4 and more, 5 mm larger -2.9 and less. On T2 the fluid between is bright: 0.4 to 1.8, 6.5 and
#: more, -2.1 and less. Of another sequence it is not known which of both it is like.
SKULL_MM, SKULL_T2_MM = (-2.0, 3.5), (-1.5, 5.8)
#: How far a mask may lie to one side, mm. Real masks had up to 1.1.
MOST_OFF_CENTRE_MM = 2.0
#: Sides of the brain on which the skull is looked for, and the sines of the angles above the horizontal between which.
_SIDES = ("left", "right", "front", "back")
_ELEVATION = (-0.09, 0.5)
#: Depth from which the brain's brightness is taken, and distance up to which the skull is looked for, mm.
_DEEP_MM, _EDGE_MM = 10.0, 20.0
#: Dark: below this share of the brain's median. The skull is where the share of dark voxels rises by the second value
#: or more; its peak is looked for from there over so many millimetres.
_DARK, _RISE, _SKULL_BINS = 0.5, 0.15, 6

#: Bounds of voxel sizes in MR of a head, mm, and the least extent that allows localisation, mm.
LEAST_MM, MOST_MM, LEAST_EXTENT_MM = 0.2, 10.0, 50.0


def quality(image: sitk.Image, stripped: Stripped, kind: Contrast) -> dict[str, float]:
    """The figures of one stripped image.

    ``brain_volume_l`` litres; ``template_overlap`` Dice with the template's mask where both are in the image;
    ``coverage`` share of the template's brain that the image reaches; ``scale`` size against the template;
    ``mutual_information`` nats, between image and template within the brain; ``upright`` ratio of that to its value for
    the best of 23 other orientations; ``boundary_fit`` contrast of the brain's edge, -1 to 1, NaN where no boundary was
    fitted; ``missing_ml`` the template's brain deeper than 8 mm that the mask lacks; ``beyond_ml`` the mask more than
    8 mm outside the template's brain; ``skull_mm`` distance from the mask to the skull, mean of four sides, negative
    where the mask holds skull; ``off_centre_mm`` half the largest difference of opposite sides (:func:`skull_edges`;
    both NaN where no skull is seen).
    """
    found = sitk.GetArrayViewFromImage(stripped.brain) > 0
    depth = sitk.GetArrayFromImage(carried_distance(stripped.from_template, image))
    carried = depth > 0
    voxel_l = math.prod(image.GetSpacing()) / 1e6
    matrix = np.reshape(stripped.from_template.GetMatrix(), (3, 3))
    stretch = float(abs(np.linalg.det(matrix)))
    whole_l = float(np.count_nonzero(sitk.GetArrayViewFromImage(icbm152().brain))) / 1e6 * stretch
    return {
        "brain_volume_l": float(np.count_nonzero(found)) * voxel_l,
        "template_overlap": agreement(stripped.brain, image_like(carried.astype(np.uint8), image)),
        "coverage": float(np.count_nonzero(carried)) * voxel_l / whole_l,
        "scale": stretch ** (1 / 3),
        "mutual_information": mutual_information(image, stripped.from_template, kind),
        "boundary_fit": stripped.fit,
        "missing_ml": float(np.count_nonzero((depth > FAR_MM) & ~found)) * voxel_l * 1000,
        "beyond_ml": float(np.count_nonzero((depth < -FAR_MM) & found)) * voxel_l * 1000,
        **_skull(image, stripped),
    }


def turned_against_header(image: sitk.Image, stripped: Stripped, kind: Contrast, figures: dict[str, float]) -> str:
    """The orientation of the head against its header, in words; empty if they agree, or if it is not a head.

    Adds ``upright`` to the figures. All 24 orientations are compared; a mirrored head cannot be detected. A mask that
    was fitted to the template has its shape and place however the head lies, which speaks for the orientation as it is:
    then what lies around the mask is compared, too, and the template is fitted anew to the head turned back.
    """
    fitted, shared = not math.isnan(stripped.fit), figures["mutual_information"]
    figures["upright"], rival = _upright(shared_by_turn(image, stripped.brain, kind))
    ways = [turns()[rival].T] if figures["upright"] <= CLEAR_TURN else []
    if fitted:
        near = distance_outside(stripped.brain) < _AROUND_MM
        ratio, rival = _upright(shared_by_turn(image, stripped.brain, kind, within=near))
        ways += [turns()[rival].T] if ratio <= CLEAR_TURN else []
        ways += usual_turns() if shared < _CLEAR_SHARED else []
    about = np.asarray(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()]))
    for matrix in {tuple(way.astype(int).ravel()): way for way in ways}.values():
        back, brain = (turned(volume, matrix, about) for volume in (image, stripped.brain))
        if fitted:
            other, _ = fitted_anew(back, kind)
        else:
            other = aligned(back, brain, kind, stripped_before=stripped.stripped_before).from_template
        turned_back = mutual_information(back, other, kind)
        if turned_back > max(shared, LEAST_SHARED_TEMPLATE):
            return (
                f"{meaning(matrix.T)} (mutual information with the template {turned_back:.3f} when turned back, "
                f"{shared:.3f} as it is)"
            )
    return ""


def _upright(shared: list[float]) -> tuple[float, int]:
    """Mutual information as it is over that of the best of all other orientations, and which that is."""
    rival = 1 + int(np.argmax(shared[1:]))
    return (float(shared[0] / shared[rival]) if shared[rival] > 0 else math.inf), rival


def agreement(one: sitk.Image, other: sitk.Image) -> float:
    """Dice of two masks on one grid."""
    a, b = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (one, other))
    both = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / both if both else 0.0


def skull_edges(image: sitk.Image, brain: sitk.Image) -> dict[str, float]:
    """Where the dark skull begins outside the brain's mask on its four sides, mm; positive if the mask is too small.

    Independent of the template: the share of dark voxels is followed from inside the mask outwards. By ``left``,
    ``right``, ``front``, ``back``; NaN for a side where no dark layer is seen.
    """
    if not sitk.GetArrayViewFromImage(brain).any():
        return dict.fromkeys(_SIDES, math.nan)
    part, _ = around(brain, _EDGE_MM)
    image, brain = image[part], brain[part]
    distance = sitk.GetArrayFromImage(distance_outside(brain))
    values = sitk.GetArrayViewFromImage(image)
    deep = values[distance < -_DEEP_MM]
    if not deep.size:
        return dict.fromkeys(_SIDES, math.nan)
    near = np.abs(distance) < _EDGE_MM
    points = points_of(image_like(near.astype(np.uint8), image)) - points_of(brain).mean(axis=0)
    x, y, z = (points / np.linalg.norm(points, axis=1, keepdims=True)).T
    level = (z > _ELEVATION[0]) & (z < _ELEVATION[1])
    sides = ((x > np.abs(y)), (-x > np.abs(y)), (-y >= np.abs(x)), (y >= np.abs(x)))
    away, dark = distance[near], values[near] < _DARK * float(np.median(deep))
    return {name: _edge(away[side & level], dark[side & level]) for name, side in zip(_SIDES, sides, strict=True)}


def _skull(image: sitk.Image, stripped: Stripped) -> dict[str, float]:
    figures = {"skull_mm": math.nan, "off_centre_mm": math.nan}
    if stripped.stripped_before:
        return figures
    sides = skull_edges(image, stripped.brain)
    seen = [value for value in sides.values() if not math.isnan(value)]
    if seen:
        figures["skull_mm"] = float(np.mean(seen))
    apart = [abs(sides[one] - sides[other]) / 2 for one, other in (("left", "right"), ("front", "back"))]
    apart = [value for value in apart if not math.isnan(value)]
    if apart:
        figures["off_centre_mm"] = max(apart)
    return figures


def _edge(away: FloatArray, dark: FloatArray) -> float:
    """Where the share of dark voxels has risen halfway to that of the skull, mm."""
    bins = np.arange(-_EDGE_MM, _EDGE_MM + 1.0)
    counts, _ = np.histogram(away, bins)
    darks, _ = np.histogram(away[dark], bins)
    share = np.convolve(darks, np.ones(3), "same") / np.maximum(np.convolve(counts, np.ones(3), "same"), 1)
    least = np.minimum.accumulate(share)
    risen = np.flatnonzero(share - least >= _RISE)
    if not risen.size:
        return math.nan
    start = int(risen[0])
    half = (least[start] + share[start : start + _SKULL_BINS].max()) / 2
    end = start + int(np.argmax(share[start:] >= half))
    begin = int(np.flatnonzero(share[:end] < half)[-1])
    return float(bins[begin] + 0.5 + (half - share[begin]) / (share[begin + 1] - share[begin]))


def implausible(figures: Mapping[str, float], sequence: str) -> list[str]:
    """Faults of a brain found on a sequence, with the values seen and expected; empty if it is plausible."""
    said = []

    def expect(name: str, low: float, high: float, what: str) -> None:
        value = figures[name]
        if not math.isnan(value) and not low <= value <= high:
            said.append(f"{what} {value:.3g}, expected {low:g} to {high:g}")

    expect("coverage", LEAST_COVERAGE, math.inf, "share of the brain in the image")
    least = VOLUME_L[0] * min(1.0, figures["coverage"])
    expect("brain_volume_l", least, VOLUME_L[1], "brain volume in litres")
    expect("mutual_information", LEAST_SHARED_TEMPLATE, math.inf, "mutual information with the template")
    expect("template_overlap", LEAST_OVERLAP, 1.0, "overlap with the template's brain")
    expect("scale", *SCALE, "size against the template")
    if "agreement" in figures:
        expect("agreement", LEAST_AGREEMENT, 1.0, "overlap of the brains that two methods found")
    expect("boundary_fit", LEAST_FIT, 1.0, "contrast of the brain's edge")
    expect("missing_ml", 0.0, MOST_MISSING_ML, "ml of the template's brain that the mask lacks")
    expect("beyond_ml", 0.0, MOST_BEYOND_ML, "ml of the mask far outside the template's brain")
    expect("skull_mm", *_skull_bounds(sequence), "mm from the mask to the skull")
    expect("off_centre_mm", 0.0, MOST_OFF_CENTRE_MM, "mm by which the mask lies to one side")
    return said


def _skull_bounds(sequence: str) -> tuple[float, float]:
    if sequence == "T2":
        return SKULL_T2_MM
    return SKULL_MM if sequence in ("T1", "T1c", "FLAIR") else (SKULL_MM[0], SKULL_T2_MM[1])


def refuse(name: str, said: list[str]) -> CaseError:
    """The problem of a sequence in which no plausible brain was found."""
    return CaseError(
        Code.BRAIN_NOT_FOUND,
        f"no plausible brain in {name}: {'; '.join(said)}. Look at the image; brain.skull_strip names other programs",
    )


def check_sequence(name: str, image: sitk.Image) -> None:
    """Refuse an image that cannot be MR of a head.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID`` when it is not three-dimensional, of several values a voxel, or holds NaN or infinite values;
        ``VOXEL_SIZE`` when voxels or the whole image do not suit a head; ``IMAGE_EMPTY`` when all values are equal.
    """
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or image.GetDepth() < 2:
        raise CaseError(
            Code.IMAGE_INVALID,
            f"{name} has the size {image.GetSize()} and {image.GetNumberOfComponentsPerPixel()} values a voxel, "
            "expected three dimensions, two slices or more and one value; split a time series into one file each",
        )
    spacing = np.asarray(image.GetSpacing())
    extent = spacing * image.GetSize()
    if spacing.min() < LEAST_MM or spacing.max() > MOST_MM or extent.min() < LEAST_EXTENT_MM:
        raise CaseError(
            Code.VOXEL_SIZE,
            f"{name} has voxels of {np.round(spacing, 3).tolist()} mm over {np.round(extent, 1).tolist()} mm, expected "
            f"{LEAST_MM} to {MOST_MM} mm and at least {LEAST_EXTENT_MM:g} mm of the head; correct the file's spacing",
        )
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseError(
            Code.IMAGE_INVALID,
            f"voxels of {name} that are not finite: {bad} of {values.size}; replace them before indexing",
        )
    if values.min() == values.max():
        raise CaseError(
            Code.IMAGE_EMPTY, f"every voxel of {name} holds {values.min()}; export the series again, or exclude it"
        )
