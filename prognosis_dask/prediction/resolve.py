"""Which cases the files of one scan can be. Resolving runs on a worker, within the limits that hold for its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.collections import resolve
from prognosis_dask.cohort.crawl import crawl
from prognosis_dask.cohort.gather import Image, gather
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.names import OTHER_MODALITY
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.cohort.sequences import DRAWN_ON, doubts, name_sequences, repeated, whole_sessions
from prognosis_dask.cohort.series import read_listing, write_listing
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import CaseError, Code, Problem
from prognosis_dask.features.guard import Stopwatch, guarded
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.volumes.files import VOLUME_SUFFIXES, volume_voxels
from prognosis_dask.volumes.labels import labels_in

#: The structure's name where no mask was given: the brain stage searches for the tumour.
AUTOMATIC = "automatic candidate"
#: A longer list of structures is not offered to choose from.
_MOST_CHOICES = 100


@dataclass(frozen=True)
class ScanFiles:
    """What was given of one scan.

    Attributes
    ----------
    sources, mask
        Folders of images; the label map among them that was given as the mask, or "".
    roi
        The structure's name that was asked for, or "".
    chosen
        The structure's place in the list that was offered, once somebody has chosen.
    clinical
        The clinical values, by column.
    originals
        The path of the file behind each link in the sources (:func:`link_files`).
    notes
        What was found on the way here and is to be known.
    """

    sources: tuple[str, ...]
    mask: str = ""
    roi: str = ""
    chosen: int | None = None
    clinical: Mapping[str, str] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Upload:
    """The files of one scan, and what its model expects of them.

    Attributes
    ----------
    files
        What was given.
    index
        The folder that the index is written to.
    rules
        The model's cohort rules, with the ROI that was asked for.
    takes_no_mask
        Whether the model's cases may be MR of the head without a mask.
    modality
        Of an image that does not say its own; empty where it is not known.
    reference
        The MR sequence that the model's brains were prepared on; empty where it is not known.
    """

    files: ScanFiles
    index: str
    rules: CohortSection
    takes_no_mask: bool
    modality: str
    reference: str = ""


def mask_name(sequence: str) -> str:
    """The name of a mask's file, by which it is known as the mask of an image of this sequence ("": of any)."""
    return f"mask_{sequence}" if sequence else "mask"


def free_name(folder: Path, name: str, suffix: str) -> Path:
    """A path of this name in the folder that is not taken yet (:mod:`prognosis_dask.cohort.pairs` reads the name)."""
    path, number = folder / f"{name}{suffix}", 2
    while path.exists():
        path, number = folder / f"{name}_{number}{suffix}", number + 1
    return path


def link_files(folder: Path, images: Sequence[tuple[str, Path]], mask: Path | None) -> tuple[dict[str, str], str]:
    """Link images, each with its MR sequence or "", and a mask into a folder, under names by which they are paired.

    Returns
    -------
    dict, str
        The path of the file behind each link; and the mask's link, empty where there is none or where it is DICOM,
        whose headers say what it is.
    """
    folder.mkdir(parents=True)
    named = [(sequence or "image", path) for sequence, path in images]
    if mask is not None:
        named.append((mask_name(sequence_of(mask.name)), mask))
    linked: dict[str, str] = {}
    for name, path in named:
        suffix = next((end for end in VOLUME_SUFFIXES if path.name.lower().endswith(end)), ".dcm")
        link = free_name(folder, name, suffix)
        link.symlink_to(path.absolute())
        linked[str(link)] = str(path)
        if suffix in (".nhdr", ".mhd"):  # a header, whose voxels lie in a file beside it
            _link_voxels(folder, path)
    return linked, str(link) if mask is not None and suffix != ".dcm" else ""


def _link_voxels(folder: Path, header: Path) -> None:
    for beside in header.absolute().parent.glob(f"{header.stem}.*"):
        if not beside.name.lower().endswith(VOLUME_SUFFIXES):
            (folder / beside.name).symlink_to(beside)


def linked_files(images: Sequence[tuple[str, Path]], mask: Path | None, work: Path) -> ScanFiles:
    """The folders given as they are, and the files under names by which they are paired (:func:`link_files`)."""
    folders = tuple(str(path.absolute()) for _, path in images if path.is_dir())
    linked, own = link_files(work / "files", [one for one in images if not one[1].is_dir()], mask)
    return ScanFiles((*folders, str(work / "files")) if linked else folders, own, originals=linked)


def resolve_upload(cases: tuple[Case, ...], digests: tuple[str, ...], context: Upload) -> list[TaskResult]:
    """One result; its values hold ``cases``, those that the files can be, with the number of ``slices`` of each.

    There is one case where the model's rules choose one, several where somebody has to choose. ``secrets`` are the
    patients' identifiers, which must not be shown where names must not appear; ``problems`` is what the index found.
    """
    return [
        guarded("resolve", case, digest, partial(_resolve, context))
        for case, digest in zip(cases, digests, strict=True)
    ]


def _resolve(context: Upload, watch: Stopwatch) -> dict[str, Any]:
    with watch.step("read"):
        found, problems = _index(context, context.rules)
        if len(found) != 1:
            # the rules choose none, or several: offer them all
            found, problems = _index(context, replace(context.rules, roi=(), roi_policy="each", collection="generic"))
        if not found:
            found, seen = _without_mask(context)
            problems = [*problems, *seen]
        if not found:
            raise _why(problems)
        found = [one for case in found for one in _by_label(_original(case, context.files.originals))]
        if len(found) > _MOST_CHOICES:
            raise CaseError(Code.ROI_AMBIGUOUS, f"{len(found)} structures, expected one series and its mask")
    secrets = {case.patient_id for case in found} | {problem.patient_id for problem in problems}
    named = [_with_modality(case, context.modality) for case in found]
    slices = [_slices(case) for case in named]
    return {"cases": named, "slices": slices, "secrets": sorted(secrets - {""}), "problems": problems}


def _index(context: Upload, rules: CohortSection) -> tuple[list[Case], list[Problem]]:
    out = Path(context.index)
    index_cohort([Path(source) for source in context.files.sources], out, rules)
    found = read_cases(out / "cases.csv")
    if context.files.mask:  # a mask that was given as such comes before those among the files
        found = [case for case in found if case.mask == context.files.mask]
    return found, read_problems(out / "problems.csv")


def _original(case: Case, originals: Mapping[str, str]) -> Case:
    return replace(
        case,
        image=originals.get(case.image, case.image),
        mask=originals.get(case.mask, case.mask),
        sequences={name: originals.get(path, path) for name, path in case.sequences.items()},
    )


def _why(problems: Sequence[Problem]) -> CaseError:
    """The problem that explains most: one of the images or the mask, before that there is none."""
    ranked = sorted(problems, key=lambda problem: problem.code in (Code.PATIENT_WITHOUT_MASK, Code.NO_ENDPOINT))
    for problem in ranked:
        if problem.code is not Code.NO_ENDPOINT and problem.severity == "problem":
            return CaseError(problem.code, problem.reason, where=problem.where)
    return CaseError(Code.NO_IMAGES, "no series of CT, MR or PET is among the files")


def _without_mask(context: Upload) -> tuple[list[Case], list[Problem]]:
    """Cases of images that no mask was linked to: with the label map that was given as the mask, or without one.

    And warnings of which images were taken for which sequence.
    """
    if not (context.takes_no_mask or context.files.mask):
        return [], []
    headers = crawl([Path(source) for source in context.files.sources], map)
    gathered = gather(headers, (), resolve(context.rules)).images.values()
    name_sequences(gathered)
    images = [
        image
        for image in gathered
        if image.key != context.files.mask and (image.modality in ("MR", OTHER_MODALITY) or context.files.mask)
    ]
    whole = whole_sessions(images) if context.takes_no_mask else []
    # of a head's session other images (localizers, diffusion, maps) are no cases of their own
    together = whole or [{image.sequence: image} for image in images]
    cases = []
    for session in together:
        image = min(session.values(), key=partial(_preference, context.reference))
        cases.append(
            Case(
                case_id="scan",
                patient_id=image.patient_id,
                modality="MR" if context.takes_no_mask else image.modality,
                roi="mask" if context.files.mask else AUTOMATIC,
                image=_path(image, context),
                mask=context.files.mask,
                sequences={name: _path(other, context) for name, other in session.items() if name},
            )
        )
    if context.files.mask and len(cases) > 1:
        raise CaseError(
            Code.SERIES_AMBIGUOUS, f"the mask could belong to any of {len(cases)} images; give the one that it is of"
        )
    used = {image.key for session in whole for image in session.values()}
    return cases, [*doubts(images), *repeated(images, used)] if whole else []


def _preference(reference: str, image: Image) -> tuple[int, str]:
    """The model's reference sequence first, then those that tumours are mostly outlined on."""
    order = (reference, *DRAWN_ON)
    name = image.sequence
    return (order.index(name) if name in order else len(order), image.key)


def _path(image: Image, context: Upload) -> str:
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
