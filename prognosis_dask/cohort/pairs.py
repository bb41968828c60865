"""Pair images and masks (NIfTI, NRRD, MetaImage) by name.

A mask belongs to the image whose name has the same words for patient and sequence. If several images match that are
not sequences or channels of one scan, the mask is a problem.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.cohort.headers import VolumeFile
from prognosis_dask.cohort.names import Volume
from prognosis_dask.errors import Code, Problem

#: nnU-Net numbers the channels of an image: ``case_001_0000``.
_CHANNEL = re.compile(r"0\d{3}")
_FORMAT = re.compile(
    r"(nifti|nii|nrrd|mha|mhd|dicom|dcm|data|raw|input|output|orig|original|cropped|resampled|registered)"
)
Folder = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """An image, a mask for it, and the ROI's name where the mask's file name holds one."""

    image: Volume
    mask: Volume
    patient_id: str
    roi: str


@dataclass(frozen=True)
class Paired:
    """The result of pairing image files with masks.

    Attributes
    ----------
    pairs
        An image and a mask each.
    alone
        Images without a mask, with their patient.
    masks
        Masks without an image file, each with the problem to report unless it belongs to a DICOM series.
    """

    pairs: list[Pair] = field(default_factory=list)
    alone: list[tuple[str, Volume]] = field(default_factory=list)
    masks: list[tuple[Volume, Problem]] = field(default_factory=list)


def pair_volumes(files: Sequence[VolumeFile]) -> Paired:
    """Pair images with masks by name and folder.

    Within one folder (``images/`` and ``masks/`` beside each other count as one) a mask belongs to the images of the
    same name, else of the same number (``img0001``, ``label0001``); else to those whose name begins like its own, or
    the other way round; else, where one of the two names says nothing of the patient, to the only image there. Without
    an image in its folder it belongs to those in the folder above, or to those of its name anywhere. Several images are
    a mask's only as sequences or channels of one scan, and a mask that names its sequence has that one alone. Whether
    they share a grid is checked when they are read.
    """
    images, masks = _sorted_out([Volume(header.file) for header in files])
    groups: dict[Folder, list[Volume]] = defaultdict(list)
    for image in images:
        groups[image.folder].append(image)
    patients = _patients(groups)
    paired = Paired()
    for mask in masks:
        found, problem = _images_of(mask, groups, images)
        if problem is not None:
            paired.masks.append((mask, problem))
        paired.pairs.extend(
            Pair(image, mask, _patient(image, mask, patients), roi_name(mask, image)) for image in found
        )
    used = {pair.image.file.path for pair in paired.pairs}
    paired.alone.extend((patients[image.file.path], image) for image in images if image.file.path not in used)
    return paired


def roi_name(mask: Volume, image: Volume | None = None, known: frozenset[str] = frozenset()) -> str:
    """The words of a mask's name that neither the image's name nor ``known`` contains."""
    known |= {word.folded for word in image.words} | set(image.core) if image is not None else frozenset()
    words = [
        word.text
        for word in mask.words
        if word.kind in ("id", "numbered", "target", "structure") and not {word.folded, word.number} & known
    ]
    return "-".join(words)


def _sorted_out(volumes: Sequence[Volume]) -> tuple[list[Volume], list[Volume]]:
    """Images, and masks; ``seg01`` is an image where ``seg01_mask`` is its mask."""
    certain = {(mask.folder, mask.literal) for mask in volumes if mask.names_mask}
    images: list[Volume] = []
    masks: list[Volume] = []
    for volume in volumes:
        by_number = volume.is_mask and not volume.names_mask and volume.literal != volume.core
        is_mask = volume.is_mask and not (by_number and (volume.folder, volume.literal) in certain)
        (masks if is_mask else images).append(volume)
    return images, masks


def _images_of(
    mask: Volume, groups: dict[Folder, list[Volume]], images: Sequence[Volume]
) -> tuple[list[Volume], Problem | None]:
    near = groups.get(mask.folder) or groups.get(mask.folder[:-1]) or []
    candidates = [image for image in near if _goes_with(mask, image)]
    found = _matching(mask, candidates) or (_only_one(mask, candidates) if candidates else [])
    if not near and any(character.isdigit() for word in mask.core for character in word):
        found = _matching(mask, [image for image in images if _goes_with(mask, image)])
    if found and _is_one_scan(found):
        return found, None
    if not (found or candidates):
        reason = "no image, neither a file nor a series, matches its name or grid"
        if near:
            reason = f"the images beside it are of another sequence ({_listed(near)})"
        return [], Problem(Code.MASK_WITHOUT_SERIES, reason, where=mask.file.path)
    several = found or candidates
    reason = f"its name does not say which of {len(several)} images it belongs to ({_listed(several)}); name them alike"
    return [], Problem(Code.SERIES_AMBIGUOUS, reason, where=mask.file.path)


def _listed(images: Sequence[Volume]) -> str:
    return ", ".join(sorted(Path(image.file.path).name for image in images)[:5])


def _goes_with(mask: Volume, image: Volume) -> bool:
    """Whether the sequences in both names agree, else the modalities."""
    if mask.sequences and image.sequences:
        return mask.sequences == image.sequences
    return not mask.modality or image.modality in ("", mask.modality)


def _matching(mask: Volume, images: Sequence[Volume]) -> list[Volume]:
    """The images whose name matches the mask's, by the strictest rule that any image meets."""
    alike: tuple[Callable[[Volume], object], ...] = (
        lambda image: image.literal == mask.literal,
        lambda image: image.core and image.core == mask.core,
    )
    for rule in alike:
        found = [image for image in images if rule(image)]
        if found:
            return found
    shared = {image.file.path: _shared_start(image.core, mask) for image in images}
    longest = max(shared.values(), default=0)
    return [image for image in images if longest and shared[image.file.path] == longest]


def _shared_start(image: tuple[str, ...], mask: Volume) -> int:
    """Number of words of the shorter name if the longer one begins with it, else zero.

    A number that only the mask has, before its word for masks, means another scan (``P1_2_mask``).
    """
    length = min(len(image), len(mask.core))
    more = mask.core[length : length + 1]
    another = any(word.isdigit() and word not in mask.mask_numbers for word in more)
    return 0 if another or image[:length] != mask.core[:length] else length


def _only_one(mask: Volume, images: Sequence[Volume]) -> list[Volume]:
    """The images of a folder if nothing in the names contradicts that the mask is theirs."""
    if not mask.core:
        return list(images)
    nameless = [image for image in images if not image.core]
    if nameless:
        return nameless
    # words without a number beside images with one, or images in a subfolder: a structure, not a patient
    structure = not any(character.isdigit() for word in mask.core for character in word)
    below = [
        image for image in images if _parent(image) != _parent(mask) and _parent(image) in Path(mask.file.path).parents
    ]
    numbered = all(any(c.isdigit() for word in image.core for c in word) for image in images)
    return list(images) if structure and (numbered or mask.begins_with_role or len(below) == len(images)) else []


def _parent(volume: Volume) -> Path:
    return Path(volume.file.path).parent


def _is_one_scan(images: Sequence[Volume]) -> bool:
    """Whether the images are sequences or channels of one scan, each present once."""
    names = {(image.folder, _without_channel(image)[0]) for image in images}
    parts = {(image.sequences, image.modality, _without_channel(image)[1]) for image in images}
    return len(names) == 1 and len(parts) == len(images)


def _without_channel(image: Volume) -> tuple[tuple[str, ...], str]:
    if len(image.core) > 1 and _CHANNEL.fullmatch(image.core[-1]):
        return image.core[:-1], image.core[-1]
    return image.core, ""


def _patients(groups: dict[Folder, list[Volume]]) -> dict[str, str]:
    """Patient of each image: its name, or its folder's if it has none or if several folders contain that name."""
    places: dict[str, set[Folder]] = defaultdict(set)
    names: dict[Folder, set[str]] = defaultdict(set)
    for folder, images in groups.items():
        for image in images:
            places[image.patient].add(folder)
            names[folder].add(image.patient)
    found = {}
    for folder, images in groups.items():
        for image in images:
            name, above = image.patient, image.own_folder
            if not name or (len(places[name]) > 1 and names[folder] == {name} and not name.startswith("sub-")):
                name = above
            elif len(places[name]) > 1 and not name.startswith("sub-"):
                name = f"{above}_{name}"
            found[image.file.path] = name
    return _with_parents(groups, found)


def _with_parents(groups: dict[Folder, list[Volume]], patients: dict[str, str]) -> dict[str, str]:
    """Distinguish folders that name a format (``P1/nifti``, ``P2/nifti``) by the folder above."""
    places: dict[str, set[Folder]] = defaultdict(set)
    for folder, images in groups.items():
        for image in images:
            if patients[image.file.path] == image.own_folder:
                places[image.own_folder].add(folder)
    found = dict(patients)
    for name, folders in places.items():
        if len(folders) < 2 or not _FORMAT.fullmatch(name.casefold()):
            continue
        for folder in folders:
            above = folder[: len(folder) - 1 - folder[::-1].index(name)] if name in folder else ()
            for image in groups[folder]:
                if patients[image.file.path] == name and above:
                    found[image.file.path] = above[-1]
    return found


def _patient(image: Volume, mask: Volume, patients: dict[str, str]) -> str:
    own = patients[image.file.path]
    if own != image.patient:
        return own
    if image.literal == mask.literal:  # scan01 and scan01_mask: the word is part of the name
        return image.patient if image.patient.startswith("sub-") else image.patient_literal
    # nnU-Net numbers an image's channels (case_001_0000); the mask has the patient's name alone
    return mask.patient if 0 < len(mask.core) < len(image.core) else own
