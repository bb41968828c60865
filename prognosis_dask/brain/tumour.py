"""The tumour's mask of a case: the one that was drawn, completed where it is a sample of slices, else a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import SimpleITK as sitk

from prognosis_dask.brain.candidate import automatic_candidate
from prognosis_dask.brain.interpolate import between_slices


@dataclass(frozen=True)
class Tumour:
    """A tumour's mask and where it comes from.

    Attributes
    ----------
    mask
        uint8, 0 and 1.
    source
        ``drawn`` as the cohort has it; ``interpolated`` drawn on some slices and completed between them;
        ``automatic`` found by :func:`~prognosis_dask.brain.candidate.automatic_candidate`, drawn by nobody.
    confidence
        Of an automatic one; 1 otherwise.
    made_slices
        The slices of an interpolated one that nobody outlined.
    """

    mask: sitk.Image
    source: Literal["drawn", "interpolated", "automatic"]
    confidence: float
    made_slices: tuple[int, ...]

    @property
    def note(self) -> str:
        """What a reader of a picture or a table of this mask has to know."""
        if self.source == "automatic":
            return f"tumour: automatic candidate, confidence {self.confidence:.2f}"
        if self.source == "interpolated":
            return f"tumour: drawn, {len(self.made_slices)} slices between the outlines interpolated"
        return "tumour: drawn"


def find_tumour(drawn: sitk.Image | None, images: Mapping[str, sitk.Image], brain_mask: sitk.Image) -> Tumour:
    """The drawn mask where there is one, else an automatic candidate.

    Parameters
    ----------
    drawn
        0 and 1, or None.
    images
        By sequence, free of the bias field, on the grid of ``brain_mask``.
    brain_mask
        0 and 1.

    Raises
    ------
    CaseError
        As :func:`~prognosis_dask.brain.candidate.automatic_candidate`, where nothing was drawn.
    """
    if drawn is None:
        candidate = automatic_candidate(images, brain_mask)
        return Tumour(candidate.mask, "automatic", candidate.confidence, ())
    mask, made = between_slices(drawn)
    return Tumour(mask, "interpolated" if made else "drawn", 1.0, made)
