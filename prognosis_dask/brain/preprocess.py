"""Prepare a patient's sequences: stripped, corrected, registered to one grid, with comparable intensities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.intensity import correct_bias, nyul, smooth, white_matter, within, zscore
from prognosis_dask.brain.orient import turn_by_boundary
from prognosis_dask.brain.quality import (
    LEAST_FIT,
    agreement,
    check_sequence,
    implausible,
    quality,
    refuse,
    turned_against_header,
)
from prognosis_dask.brain.register import rigid
from prognosis_dask.brain.strip import Stripped, aligned, settle_strip, strip, strip_with, stripped_before
from prognosis_dask.brain.template import Contrast
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import one_thread

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
        Figures of the brain (:func:`prognosis_dask.brain.quality.quality`), and per other sequence how far the head
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
