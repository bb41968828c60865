"""Images and masks that are paired by their names: NIfTI, NRRD, MetaImage."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prognosis_dask.cohort.files import FileStamp
from prognosis_dask.cohort.headers import VolumeFile
from prognosis_dask.errors import Code, Problem

#: File endings of images that carry their own geometry.
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

_MASK = re.compile(r"(mask|seg|label|roi|contour|gtv)\w*", re.IGNORECASE)
_ROLE = re.compile(r"(mask|seg|label|roi|contour|image|img|scan|vol)\w*", re.IGNORECASE)
#: Sequence names as they occur in file names, and the modality each stands for.
_MODALITIES = {
    "CT": ("ct",),
    "MR": ("mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2w", "t2f", "flair", "adc", "dwi"),
    "PT": ("pt", "pet", "suv"),
}
_MODALITY_OF = {token: modality for modality, tokens in _MODALITIES.items() for token in tokens}
#: DICOM's word for a modality that nothing tells.
OTHER_MODALITY = "OT"


@dataclass(frozen=True)
class Volume:
    """A file with what its name says. ``core`` is what is left of the name when its role and sequence are gone."""

    file: FileStamp

    @cached_property
    def _stem(self) -> str:
        name = Path(self.file.path).name
        suffix = max((s for s in VOLUME_SUFFIXES if name.lower().endswith(s)), key=len, default="")
        return name[: len(name) - len(suffix)]

    @cached_property
    def tokens(self) -> list[str]:
        """The words of the name."""
        return [token for token in re.split(r"[^A-Za-z0-9]+", self._stem) if token]

    @cached_property
    def is_mask(self) -> bool:
        """By its own name, or by the name of a folder that says nothing else (``masks/``, ``labelsTr/``)."""
        if any(_MASK.fullmatch(token) for token in self.tokens):
            return True
        return any(_is_role_folder(part) and _MASK.match(part) for part in Path(self.file.path).parts[-3:-1])

    @cached_property
    def folder(self) -> tuple[str, ...]:
        """The folder, without those that only say "images" or "masks"; shared by what belongs together."""
        parts = Path(self.file.path).parts[:-1]
        return (*parts[:-2], *(part for part in parts[-2:] if not _is_role_folder(part)))

    @cached_property
    def core(self) -> tuple[str, ...]:
        """The words that say whose it is, in lower case."""
        plain = (token.lower() for token in self.tokens if not _ROLE.fullmatch(token) and not _MASK.fullmatch(token))
        return tuple(token for token in plain if token not in _MODALITY_OF)

    @cached_property
    def modality(self) -> str:
        """CT, MR or PT where the name says so, else nothing."""
        return next((_MODALITY_OF[token.lower()] for token in self.tokens if token.lower() in _MODALITY_OF), "")

    @cached_property
    def patient(self) -> str:
        """The name as written, without role and sequence at its ends; the folder's name when nothing is left."""
        parts = re.split(r"([^A-Za-z0-9]+)", self._stem)
        while parts and self._says_nothing(parts[-1]):
            parts.pop()
        while parts and self._says_nothing(parts[0]):
            parts.pop(0)
        return "".join(parts) or (self.folder[-1] if self.folder else "unnamed")

    @staticmethod
    def _says_nothing(token: str) -> bool:
        word = token.strip("_-. ").lower()
        return not word or word in _MODALITY_OF or bool(_ROLE.fullmatch(word) or _MASK.fullmatch(word))


@dataclass(frozen=True)
class Pair:
    """An image, a mask for it, and the ROI's name where the mask's file name holds one."""

    image: Volume
    mask: Volume
    patient_id: str
    roi: str


def modality_of(word: str) -> str:
    """CT, MR or PT for a modality's or a sequence's name, else nothing.

    >>> modality_of("PET"), modality_of("T1c"), modality_of("US")
    ('PT', 'MR', '')
    """
    return _MODALITY_OF.get(word.strip().lower(), "")


def is_mask_name(path: str) -> bool:
    """Whether a file's name, or its folder's, says that it is a mask.

    >>> is_mask_name("/data/P1/ct.nii.gz"), is_mask_name("/data/P1/GTV-1.nrrd"), is_mask_name("/data/labelsTr/P1.nii")
    (False, True, True)
    """
    return Volume(FileStamp(path, 0, 0)).is_mask


def pair_volumes(files: Sequence[VolumeFile]) -> tuple[list[Pair], list[tuple[str, Volume]], list[Problem]]:
    """Pair images with masks by name and folder.

    Within one folder (``images/`` and ``masks/`` beside each other count as one) a mask belongs to the images of the
    same name; else to those whose name begins like its own, or the other way round; else to the only image there.
    Whether they lie on one grid is seen when they are read.

    Returns the pairs, the images without a mask with their patient, and the problems.
    """
    volumes = [Volume(header.file) for header in files]
    images: dict[tuple[str, ...], list[Volume]] = defaultdict(list)
    for volume in volumes:
        if not volume.is_mask:
            images[volume.folder].append(volume)
    patients = _patients(images)
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for mask in (volume for volume in volumes if volume.is_mask):
        found, problem = _images_of(mask, images.get(mask.folder, []))
        if problem is not None:
            problems.append(problem)
        pairs += [Pair(image, mask, _patient(image, mask, patients), _roi_name(mask, image)) for image in found]
    used = {pair.image.file.path for pair in pairs}
    alone = [v for group in images.values() for v in group if v.file.path not in used]
    return pairs, [(patients[volume.file.path], volume) for volume in alone], problems


def _images_of(mask: Volume, images: list[Volume]) -> tuple[list[Volume], Problem | None]:
    candidates = [image for image in images if not mask.modality or image.modality in ("", mask.modality)]
    same = [image for image in candidates if image.core == mask.core]
    if same:
        return same, None
    shared = {image.file.path: _shared_start(image.core, mask.core) for image in candidates}
    longest = max(shared.values(), default=0)
    if longest:
        return [image for image in candidates if shared[image.file.path] == longest], None
    if len(candidates) == 1:
        return candidates, None
    if not candidates:
        reason = "no image file beside it with a matching name (label maps are not linked to DICOM series)"
        return [], Problem(Code.MASK_WITHOUT_SERIES, reason, where=mask.file.path)
    names = ", ".join(sorted(Path(image.file.path).name for image in candidates)[:5])
    reason = f"its name does not say which of {len(candidates)} images it belongs to ({names}); name them alike"
    return [], Problem(Code.SERIES_AMBIGUOUS, reason, where=mask.file.path)


def _shared_start(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Number of words of the shorter name when the longer one begins with it, else zero."""
    length = min(len(one), len(other))
    return length if one[:length] == other[:length] else 0


def _patients(images: dict[tuple[str, ...], list[Volume]]) -> dict[str, str]:
    """Patient of each image: its name, or its folder's where the same name occurs in several folders."""
    folders: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for folder, volumes in images.items():
        for volume in volumes:
            folders[volume.patient].add(folder)
    return {
        volume.file.path: folder[-1] if len(folders[volume.patient]) > 1 else volume.patient
        for folder, volumes in images.items()
        for volume in volumes
    }


def _patient(image: Volume, mask: Volume, patients: dict[str, str]) -> str:
    # nnU-Net numbers an image's channels (case_001_0000); the mask has the patient's name alone
    shorter = 0 < len(mask.core) < len(image.core) and patients[image.file.path] == image.patient
    return mask.patient if shorter else patients[image.file.path]


def _roi_name(mask: Volume, image: Volume) -> str:
    known = set(image.core)
    words = [
        t for t in mask.tokens if t.lower() not in known and not _ROLE.fullmatch(t) and t.lower() not in _MODALITY_OF
    ]
    return "-".join(words)


def _is_role_folder(name: str) -> bool:
    tokens = [token for token in re.split(r"[^A-Za-z0-9]+", name) if token]
    return bool(tokens) and all(_ROLE.fullmatch(token) or _MASK.fullmatch(token) for token in tokens)
