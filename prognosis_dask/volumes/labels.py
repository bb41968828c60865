"""Interpret the values of a label map: labels, a scaled mask, or fractions that need a threshold."""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, NumberArray
from prognosis_dask.errors import CaseError, Code, warn

#: Tolerance of a label from a whole number: conversions give 1.0000001, interpolation any value.
WHOLE = 1e-3
#: Most labels that are merged into one mask if none is selected: a file with more is an anatomy, a smoothed mask from
#: 0 to 255, or an image.
MOST_TOGETHER = 20
#: A label of an overlapping layer (Slicer's ``.seg.nrrd``) is this times the layer's number, from zero, plus the value
#: there: layer 0, which pyradiomics reads by default, keeps its values.
LAYER = 1000
#: Largest overshoot of interpolated fractions.
OVERSHOOT = 1.25


def chosen_voxels(values: NumberArray, labels: tuple[int, ...], threshold: float = 0.0) -> BoolArray:
    """The voxels with one of ``labels``; if empty, the file as a mask.

    Labels are whole numbers (:data:`WHOLE`) from zero on. A file with zero and one other value is a mask, whatever the
    value (1, 255, 0.00392). Other values are fractions, probabilities or an interpolated mask: voxels from
    ``threshold`` on belong to it, and without a threshold it is a problem, because every rule would give another ROI.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE``; ``ROI_NOT_FOUND`` if no voxel has a label; ``MASK_EMPTY``.
    """
    present = present_values(values)
    if not len(present):
        raise CaseError(Code.MASK_EMPTY, "the label map contains only zeros")
    if len(present) == 1 and present[0] > 0 and not labels:
        return _not_everywhere(np.not_equal(values, 0))
    if not _are_whole(present) or threshold > 1:
        return _shares(values, present, labels or (1,), threshold)
    _refuse_negative(present)
    if labels:
        return _labelled(values, present, labels)
    if len(present) > MOST_TOGETHER:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"{len(present)} different values ({_some(present)}) and nothing says which is the ROI: name the labels "
            f"(dataset.json or a table beside the file, or a table of cases with Label), or set image.mask_threshold "
            f"where they are shares",
        )
    warn(
        Code.MASK_LABELS_MERGED,
        f"the labels {_some(present)} were taken together as one ROI, because nothing says which is which; name them "
        f"in a table beside the file",
    )
    return _not_everywhere(np.isin(values, present[np.rint(present) != 0].astype(values.dtype)))


def present_values(values: NumberArray) -> FloatArray:
    """The distinct non-zero values, in order.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE`` where one is not finite.
    """
    found = np.unique(values[values != 0])  # a hundred times faster than sorting with the zeros
    if not np.isfinite(found).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseError(Code.MASK_UNREADABLE, f"voxels that are not finite: {bad}; labels are whole numbers")
    present: FloatArray = found.astype(np.float64)
    return present


def labels_in(values: NumberArray) -> tuple[int, ...]:
    """The labels of a label map, in order; empty if its values are not labels. Layers count as :data:`LAYER` says.

    Raises
    ------
    CaseError
        As :func:`present_values`.
    """
    if values.ndim == 4:
        layers = range(values.shape[-1])
        return tuple(LAYER * layer + label for layer in layers for label in labels_in(values[..., layer]))
    present = present_values(values)
    if not _are_whole(present) or (len(present) and present[0] < 0):
        return ()
    return tuple(int(label) for label in np.unique(np.rint(present)) if label)


def _are_whole(present: FloatArray) -> bool:
    return bool(np.abs(present - np.rint(present)).max(initial=0) <= WHOLE)


def _refuse_negative(present: FloatArray) -> None:
    if present[0] < 0:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"negative values, as in {_some(present)}: an image, or a label that means something else",
        )


def _labelled(values: NumberArray, present: FloatArray, labels: tuple[int, ...]) -> BoolArray:
    wanted = present[np.isin(np.rint(present), labels)]
    if not len(wanted):
        raise CaseError(Code.ROI_NOT_FOUND, f"no voxel holds {list(labels)}; the label map has {_some(present)}")
    return np.isin(values, wanted.astype(values.dtype))


def _shares(values: NumberArray, present: FloatArray, labels: tuple[int, ...], threshold: float) -> BoolArray:
    if labels != (1,) or not threshold:
        kind = "that are no whole numbers " if not _are_whole(present) else ""
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"{len(present)} different values {kind}({_some(present)}): an image, an interpolated mask, or shares? "
            f"image.mask_threshold = 0.5 takes them from a half on",
        )
    # splines overshoot by a tenth; more means another scale, or an image
    most, least = float(present[-1]), float(present[0])
    if most > max(1.0, 2 * threshold) * OVERSHOOT or least < -most * (OVERSHOOT - 1):
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"values from {min(least, 0.0):g} to {most:g} do not go with image.mask_threshold = {threshold:g}, made "
            f"for 0 to {max(1.0, 2 * threshold):g}",
        )
    mask: BoolArray = np.greater_equal(values, threshold)
    if not mask.any():
        raise CaseError(Code.MASK_EMPTY, f"no voxel reaches image.mask_threshold = {threshold:g}; the most is {most:g}")
    return _not_everywhere(mask)


def _not_everywhere(mask: BoolArray) -> BoolArray:
    if mask.all():
        raise CaseError(Code.MASK_UNREADABLE, "no voxel is zero, so that the mask would be the whole image")
    return mask


def _some(present: FloatArray) -> str:
    shown = ", ".join(f"{value:g}" for value in present[:5])
    return shown if len(present) <= 5 else f"{shown} ... {present[-1]:g}"
