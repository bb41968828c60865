"""Parse the name of an image file: patient, sequence, and whether it is an image or a mask."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prognosis_dask.cohort.headers import FileStamp
from prognosis_dask.volumes.files import VOLUME_SUFFIXES

#: Words for the role of a file, not for its patient. Whole words only: Segovia and Volkmann are patients.
_MASK = frozenset((
    "mask", "masks", "msk", "msks", "seg", "segs", "segm", "segmentation", "segmentations", "segment", "segments",
    "segmented", "dseg", "aseg", "label", "labels", "labelmap", "labelmaps", "lbl", "lbls", "roi", "rois", "contour",
    "contours", "annotation", "annotations", "annot", "delineation", "groundtruth", "gt", "truth", "glistrboost",
))  # fmt: skip
_IMAGE = frozenset(["image", "images", "img", "imgs", "imaging", "scan", "scans", "vol", "vols", "volume", "volumes"])
#: Target volumes: they mean a mask, and name the ROI.
_TARGET = re.compile(r"i?gtv[a-z]*\d*[a-z]?|[cip]tv[np]?\d*")
#: Structures that mark a file as a mask if they end its name (``P1_tumor``).
STRUCTURE = frozenset(
    ["tumor", "tumors", "tumour", "tumours", "lesion", "lesions", "nodule", "nodules", "target", "met"]
)
#: Suffixes for parts of a data set, as in ``labelsTr``.
_SHARE = r"(tr|ts|te|va|val|train|test|training|testing|validation)"
_GLUED_SHARE = re.compile(rf"({'|'.join(sorted(_MASK | _IMAGE, key=len, reverse=True))}){_SHARE}")
#: A number attached to such a word may be a patient's (``label0001``), and so may the two together (``seg01``).
_NUMBERED = re.compile(rf"({'|'.join(sorted(_MASK | _IMAGE, key=len, reverse=True))})(\d+)")
_STUCK_TO_NUMBER = re.compile(r"(.*\d)(mask|msk|seg|label|lbl|image|img|ct|mr|mri|pet|pt)")
_PLURAL = frozenset(
    ["masks", "labels", "segmentations", "annotations", "contours", "rois", "segs", "labelmaps", "delineations"]
)

#: Words for sequences and modalities, with the sequence (empty: any of the modality) and the modality.
_SEQUENCES = {
    "ct": ("", "CT"), "cect": ("", "CT"), "ncct": ("", "CT"), "ldct": ("", "CT"),
    "pt": ("", "PT"), "pet": ("", "PT"), "suv": ("", "PT"), "suvbw": ("", "PT"),
    "mr": ("", "MR"), "mri": ("", "MR"),
    "t1": ("T1", "MR"), "t1w": ("T1", "MR"), "t1n": ("T1", "MR"),
    "t1c": ("T1c", "MR"), "t1ce": ("T1c", "MR"), "t1gd": ("T1c", "MR"), "t1gad": ("T1c", "MR"),
    "t1post": ("T1c", "MR"), "t1wce": ("T1c", "MR"),
    "t2": ("T2", "MR"), "t2w": ("T2", "MR"),
    "flair": ("FLAIR", "MR"), "t2f": ("FLAIR", "MR"), "t2flair": ("FLAIR", "MR"), "fla": ("FLAIR", "MR"),
    "adc": ("ADC", "MR"), "dwi": ("DWI", "MR"), "hbv": ("DWI", "MR"), "swi": ("SWI", "MR"), "dce": ("DCE", "MR"),
}  # fmt: skip
#: DICOM's code for an unknown modality.
OTHER_MODALITY = "OT"

#: Folders for one visit or one format of a patient; the patient's name is in the folder above.
_VISIT = re.compile(
    r"(baseline|follow|followup|up|fu|pre|post|op|preop|postop|visit|ses|session|tp|timepoint|time|scan|exam|study|week|"
    r"month|day|anat|date)\d*|\d{1,2}"
)


@dataclass(frozen=True)
class Word:
    """A word of a name, from ``start`` on.

    ``kind``: ``id``, ``image``, ``mask``, ``target``, ``sequence``, ``structure``, or ``numbered``, which is a number
    stuck to a word for images or masks.
    """

    text: str
    start: int
    kind: str

    @property
    def folded(self) -> str:
        """As it is compared."""
        return self.text.casefold()

    @property
    def number(self) -> str:
        """Of a numbered word the number alone."""
        match = _NUMBERED.fullmatch(self.folded)
        return match[2] if match else self.folded


def words_of(text: str) -> list[Word]:
    """The words of a file or folder name, with their kinds. Letters of any script, in composed form (NFC).

    >>> [(word.text, word.kind) for word in words_of("Müller_T1_tumorMask")]
    [('Müller', 'id'), ('T1', 'sequence'), ('tumor', 'id'), ('Mask', 'mask')]
    """
    found: list[Word] = []
    for match in re.finditer(r"(?:[^\W_]|[\u0300-\u036f])+", text):
        found += _split(match[0], match.start())
    if len(found) > 1 and found[-1].kind == "id" and found[-1].folded in STRUCTURE:
        found[-1] = Word(found[-1].text, found[-1].start, "structure")
    return found


def _split(text: str, start: int) -> list[Word]:
    kind = _kind(text.casefold())
    if kind != "id":
        return [Word(text, start, kind)]
    # tumorMask, P1mask, 张三mask
    cut = re.fullmatch(r"(.*[^\W\d_A-Z])([A-Z][a-z]+)", text) or _STUCK_TO_NUMBER.fullmatch(text.casefold())
    cut = cut or re.fullmatch(r"([^\x00-\x7f]+)([A-Za-z]\w*)", text)
    if cut and _kind(cut[2].casefold()) != "id":
        at = len(cut[1])
        return [*_split(text[:at], start), Word(text[at:], start + at, _kind(cut[2].casefold()))]
    if text.casefold().endswith("mask"):
        return [Word(text, start, "mask")]
    return [Word(text, start, "id")]


def _kind(folded: str) -> str:
    if folded in _SEQUENCES:
        return "sequence"
    if folded in _MASK or folded in _IMAGE:
        return "mask" if folded in _MASK else "image"
    if _TARGET.fullmatch(folded):
        return "target"
    share = _GLUED_SHARE.fullmatch(folded)
    if share:
        return "mask" if share[1] in _MASK else "image"
    return "numbered" if _NUMBERED.fullmatch(folded) else "id"


def _is_numbered_mask(word: Word) -> bool:
    match = _NUMBERED.fullmatch(word.folded)
    return match is not None and match[1] in _MASK


def composed(text: str) -> str:
    """The text in Unicode's composed form: file systems store umlauts in either of two ways.

    >>> composed("Mu\u0308ller") == composed("M\u00fcller")
    True
    """
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Volume:
    """An image file with what its name and its folders tell."""

    file: FileStamp

    @cached_property
    def _stem(self) -> str:
        name = composed(Path(self.file.path).name)
        suffix = max((s for s in VOLUME_SUFFIXES if name.lower().endswith(s)), key=len, default="")
        return name[: len(name) - len(suffix)]

    @cached_property
    def words(self) -> list[Word]:
        """The words of the name."""
        return words_of(self._stem)

    @cached_property
    def names_mask(self) -> bool:
        """Whether its own name contains an unambiguous word for masks."""
        return any(word.kind in ("mask", "target", "structure") for word in self.words)

    @cached_property
    def is_mask(self) -> bool:
        """By its own name, or by the name of a folder (``masks/``, ``labelsTr/``, ``seg-lungs/``)."""
        if self.names_mask or any(_is_mask_folder(part) for part in self._parts[-2:]):
            return True
        kinds = {word.kind for word in self.words}
        return any(_is_numbered_mask(word) for word in self.words) and not kinds & {"image", "sequence"}

    @cached_property
    def _parts(self) -> tuple[str, ...]:
        return tuple(composed(part) for part in Path(self.file.path).parts[:-1])

    @cached_property
    def folder(self) -> tuple[str, ...]:
        """The folder without trailing parts such as "images", "masks" or a modality; related files share it."""
        parts = self._parts
        least = max(len(parts) - 3, 0)
        while len(parts) > least and _says_nothing(parts[-1]):
            parts = parts[:-1]
        return parts

    @cached_property
    def literal(self) -> tuple[str, ...]:
        """The words that identify the patient, folded; for a mask those before its word for masks, if any."""
        return tuple(word.folded for word in self._identity)

    @cached_property
    def core(self) -> tuple[str, ...]:
        """The same with the number alone of words such as ``img0001`` and ``label0001``."""
        return tuple(word.number for word in self._identity)

    @cached_property
    def mask_numbers(self) -> frozenset[str]:
        """Numbers attached to words for masks (``P1_seg2``): lesions, unless an image has them too."""
        return frozenset(word.number for word in self.words[1:] if _is_numbered_mask(word))

    @cached_property
    def _identity(self) -> list[Word]:
        words = self.words
        role = next((i for i, word in enumerate(words) if word.kind in ("mask", "target", "structure")), len(words))
        before = [word for word in words[:role] if word.kind in ("id", "numbered")]
        if before or role == len(words) or words[role].kind == "target":
            return before
        return [word for word in words[role:] if word.kind in ("id", "numbered")]

    @cached_property
    def begins_with_role(self) -> bool:
        """Whether it is named like ``mask_liver``: what follows may be a patient or a structure."""
        return bool(self.words) and self.words[0].kind == "mask"

    @cached_property
    def sequences(self) -> frozenset[str]:
        """Sequences that the name, else the folder, names: T1, T1c, T2, FLAIR, ADC ..."""
        found = {_SEQUENCES[word.folded][0] for word in self._sequence_words} - {""}
        return frozenset(found - {"T2"} if "FLAIR" in found else found)

    @cached_property
    def modality(self) -> str:
        """CT, MR or PT if the name, else the folder, says so, else empty."""
        return next((_SEQUENCES[word.folded][1] for word in self._sequence_words), "")

    @cached_property
    def _sequence_words(self) -> list[Word]:
        own = [word for word in self.words if word.kind == "sequence"]
        above = [word for part in self._parts[len(self.folder) :] for word in words_of(part) if word.kind == "sequence"]
        return own or above

    @cached_property
    def patient(self) -> str:
        """The name as written, without role and sequence at its ends; may be empty.

        In BIDS it is the subject (``sub-01_ses-02_T1w``); a number counts alone if nothing else tells the role.
        """
        subject = re.match(r"sub-[^\W_]+", self._stem)
        if subject:
            return subject[0]
        return self._named(numbers={word.kind for word in self.words} <= {"id", "numbered"})

    @cached_property
    def patient_literal(self) -> str:
        """The same with words such as ``scan01`` as they are."""
        return self._named(numbers=False)

    def _named(self, *, numbers: bool) -> str:
        words = [word for word in self.words if word in self._identity]
        if not words:
            return ""
        end = words[-1].start + len(words[-1].text)
        start = words[0].start
        text = self._stem[start:end]
        if numbers and words[0].kind == "numbered":
            text = text[len(words[0].text) - len(words[0].number) :]
        return text

    @cached_property
    def own_folder(self) -> str:
        """The patient's folder; the one above if it names only a visit."""
        parts = self.folder
        while len(parts) > 1 and _is_visit(parts[-1]):
            parts = parts[:-1]
        return parts[-1] if parts else "unnamed"


def _is_visit(name: str) -> bool:
    words = re.findall(r"[^\W_]+", name.casefold())
    return bool(words) and not words[0].isdigit() and all(_VISIT.fullmatch(word) for word in words)


def _is_mask_folder(name: str) -> bool:
    words = words_of(name)
    if not words:
        return False
    if all(word.kind in ("mask", "image") for word in words):
        return any(word.kind == "mask" for word in words)
    # lung_masks, seg-lungs-LUNA16; not P1_seg, which is a patient's folder
    return bool({words[0].folded, words[-1].folded} & _PLURAL) or name.casefold().startswith(("seg-", "masks"))


def _says_nothing(name: str) -> bool:
    words = words_of(name)
    only = bool(words) and all(word.kind in ("mask", "image", "sequence") for word in words)
    return only or _is_mask_folder(name)


def modality_of(word: str) -> str:
    """CT, MR or PT for a modality's or a sequence's name, else nothing.

    >>> modality_of("PET"), modality_of("T1c"), modality_of("US")
    ('PT', 'MR', '')
    """
    return _SEQUENCES.get(word.strip().casefold(), ("", ""))[1]


def is_mask_name(path: str) -> bool:
    """Whether a file's name, or its folder's, says that it is a mask.

    >>> is_mask_name("/data/P1/ct.nii.gz"), is_mask_name("/data/P1/GTV-1.nrrd"), is_mask_name("/data/labelsTr/P1.nii")
    (False, True, True)
    """
    return Volume(FileStamp(path, 0, 0)).is_mask
