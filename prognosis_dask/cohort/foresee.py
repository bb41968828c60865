"""What a run will refuse, or warn of, by what the headers alone tell; said when the cohort is indexed."""

from __future__ import annotations

from prognosis_dask.cohort.gather import Image
from prognosis_dask.cohort.headers import Point
from prognosis_dask.cohort.rois import Selection
from prognosis_dask.cohort.usable import usable_runs
from prognosis_dask.errors import CaseError, Code, Problem, collected_warnings
from prognosis_dask.job import ImageSection

#: The codes of these problems; a run finds them anew, by its own settings.
FORESEEN = (
    Code.PET_UNITS,
    Code.IMAGE_UNITS,
    Code.SERIES_TOO_SHORT,
    Code.SERIES_MIXED,
    Code.SLICE_DUPLICATE,
    Code.SLICE_GAP,
    Code.GANTRY_TILT,
)


def foresee(image: Image, chosen: Selection, settings: ImageSection) -> list[Problem]:
    """The problems and warnings of a case on a DICOM series; none of an image file, whose header says too little."""
    if image.listing is None:
        return []
    with collected_warnings() as found:
        try:
            usable_runs(image.listing, settings, (lambda: _planes(image, chosen)) if chosen.mask.path else None)
        except CaseError as error:
            return [*found, error.problem]
    return found


def _planes(image: Image, chosen: Selection) -> list[Point]:
    """A point in each plane of an RTSTRUCT's chosen ROIs; none of other masks, whose planes may be empty."""
    return [
        point
        for candidate in image.candidates
        if candidate.mask.path == chosen.mask.path and candidate.kind == "RTSTRUCT"
        if not set(candidate.labels).isdisjoint(chosen.labels)
        for point in candidate.structure.points
    ]
