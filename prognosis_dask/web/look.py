"""What an upload holds: the cases that it could be. Runs on a worker, in the process that its limits hold for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.collections import resolve
from prognosis_dask.cohort.crawl import crawl
from prognosis_dask.cohort.gather import Image, gather
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.listing import read_listing, write_listing
from prognosis_dask.cohort.pairs import OTHER_MODALITY
from prognosis_dask.cohort.sequences import DRAWN_ON, image_sequence, sessions
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import CaseError, Code, Problem
from prognosis_dask.features.stages import Stopwatch, guarded
from prognosis_dask.storage.outcome import Outcome
from prognosis_dask.volumes.files import volume_voxels
from prognosis_dask.volumes.labels import labels_in

#: What the tumour is called that nobody has drawn.
AUTOMATIC = "automatic candidate"
#: More structures than this are no list to choose from.
_MOST_CHOICES = 100


@dataclass(frozen=True)
class Look:
    """Where an upload lies, and what its model asks for.

    Attributes
    ----------
    files, index
        Folders: of the images, and where the index writes.
    rules
        The model's, or with the ROI that was asked for.
    mask
        The label map that came as the mask; empty where none did.
    takes_no_mask
        Whether a case may do without.
    modality
        What an image is that does not say what it is; empty where the model's training cases do not tell either.
    reference
        The MR sequence that the model's brains were prepared on; empty where that is not known.
    """

    files: str
    index: str
    rules: CohortSection
    mask: str
    takes_no_mask: bool
    modality: str
    reference: str = ""


def run_look(cases: tuple[Case, ...], digests: tuple[str, ...], context: Look) -> list[Outcome]:
    """One outcome; its result holds ``cases``, those that the upload could be, and ``secrets``, words never to be told.

    ``cases`` has one case where the model's rules choose one, several where somebody has to choose.
    """
    return [guarded("look", case, digest, partial(_look, context)) for case, digest in zip(cases, digests, strict=True)]


def _look(context: Look, watch: Stopwatch) -> dict[str, object]:
    with watch.step("read"):
        found, problems = _index(context, context.rules)
        if len(found) != 1:
            # the rules choose none, or several: let the reader choose of all
            found, problems = _index(context, replace(context.rules, roi=(), roi_policy="each", collection="generic"))
        if not found:
            found = _without_mask(context)
        if not found:
            raise _why(problems)
        found = [one for case in found for one in _by_label(case)]
        if len(found) > _MOST_CHOICES:
            raise CaseError(Code.ROI_AMBIGUOUS, f"{len(found)} structures; send the one series and its mask only")
    secrets = {case.patient_id for case in found} | {problem.patient_id for problem in problems}
    named = [_with_modality(case, context.modality) for case in found]
    return {"cases": named, "slices": [_slices(case) for case in named], "secrets": sorted(secrets - {""})}


def _index(context: Look, rules: CohortSection) -> tuple[list[Case], list[Problem]]:
    out = Path(context.index)
    index_cohort([Path(context.files)], out, rules)
    return read_cases(out / "cases.csv"), read_problems(out / "problems.csv")


def _why(problems: Sequence[Problem]) -> CaseError:
    """The problem that tells most: of the images or the mask rather than that there is none."""
    ranked = sorted(problems, key=lambda problem: problem.code in (Code.PATIENT_WITHOUT_MASK, Code.NO_ENDPOINT))
    for problem in ranked:
        if problem.code is not Code.NO_ENDPOINT and problem.severity == "problem":
            return CaseError(problem.code, problem.reason, where=problem.where)
    return CaseError(Code.NO_IMAGES, "no series of CT, MR or PET is among the files")


def _without_mask(context: Look) -> list[Case]:
    """Cases of images that no mask was linked to: with the label map that came as the mask, or with none."""
    if not (context.takes_no_mask or context.mask):
        return []
    headers = crawl([Path(context.files)], map)
    images = [
        image
        for image in gather(headers, (), resolve(context.rules)).images.values()
        if image.key != context.mask and (image.modality in ("MR", OTHER_MODALITY) or context.mask)
    ]
    together = sessions(images)
    cases, told = [], set[str]()
    for image in sorted(images, key=partial(_preference, context.reference)):
        session = together.get(image.key, {})
        if image.key in told:
            continue
        told |= {image.key, *(other.key for other in session.values())}
        cases.append(
            Case(
                case_id="scan",
                patient_id=image.patient_id,
                modality="MR" if context.takes_no_mask else image.modality,
                roi="mask" if context.mask else AUTOMATIC,
                image=_path(image, context),
                mask=context.mask,
                sequences={name: _path(other, context) for name, other in session.items()},
            )
        )
    if context.mask and len(cases) > 1:
        raise CaseError(
            Code.SERIES_AMBIGUOUS, f"the mask could belong to any of {len(cases)} images; send the one that it is of"
        )
    return cases


def _preference(reference: str, image: Image) -> tuple[int, str]:
    """The model's own sequence comes first, then those that tumours are mostly drawn on."""
    order = (reference, *DRAWN_ON)
    name = image_sequence(image)
    return (order.index(name) if name in order else len(order), image.key)


def _path(image: Image, context: Look) -> str:
    if image.listing is None:
        return image.key
    return str(write_listing(Path(context.index) / "series", image.listing))


def _by_label(case: Case) -> list[Case]:
    """A label map with several values is as many structures, or all of them together."""
    if not case.mask or case.labels or case.mask.endswith(".dcm"):
        return [case]
    try:
        labels = labels_in(volume_voxels(Path(case.mask)))
    except CaseError as error:
        reason = f"the mask cannot be read as a label map: {error.problem.reason}"
        raise CaseError(Code.MASK_UNREADABLE, reason) from error
    if not 1 < len(labels) <= _MOST_CHOICES:
        return [case]
    together = replace(case, roi=f"all {len(labels)} labels together")
    return [together, *(replace(case, roi=f"label {label}", labels=(label,)) for label in labels)]


def _with_modality(case: Case, modality: str) -> Case:
    return replace(case, modality=modality) if case.modality == OTHER_MODALITY and modality else case


def _slices(case: Case) -> int:
    """Of a DICOM series; 0 where the image is one file."""
    return len(read_listing(case.image).slices) if case.image.endswith(".series.json") else 0
