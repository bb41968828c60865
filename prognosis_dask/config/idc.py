"""The section `[idc]` of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from prognosis_dask.config.fields import AtLeast, Unit


@dataclass(frozen=True)
class IdcSection:
    """What is taken of collections of the Imaging Data Commons (`idc:` among `cohort.sources`)."""

    patients: Annotated[tuple[str, ...], "Only these patients (PatientID)."] = ()
    modalities: Annotated[
        tuple[str, ...],
        "Only these series, images and masks (`CT`, `RTSTRUCT`); empty: `cohort.modalities` with RTSTRUCT and SEG.",
    ] = ()
    analysis_results: Annotated[
        tuple[str, ...],
        "Only masks of these analyses, such as `totalsegmentator_ct_segmentations`; `original`: those that came with "
        "the collection, mostly drawn by experts.",
    ] = ()
    licence: Annotated[
        Literal["", "commercial"], "`commercial`: nothing whose licence is against commercial use; empty: everything."
    ] = ""
    body_part: Annotated[
        str, "Only images of which the headers name this body part (BodyPartExamined); empty: any."
    ] = ""
    limit: Annotated[int, AtLeast(0), Unit("patients"), "At most so many patients who have a mask; 0: all."] = 0
    seed: Annotated[int, AtLeast(0), "With a limit, a random choice for each; 0: the first patients by name."] = 0
