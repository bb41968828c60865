"""Image files with a geometry of their own (NIfTI, NRRD, MetaImage): paired by name, or linked to a series by grid.

A mask belongs to the image whose name has the same words for patient and sequence. If several images match that are
not sequences or channels of one scan, the mask is a problem. A mask without an image file may be drawn on a DICOM
series: the patient in its name and its grid say on which.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.cohort.headers import VolumeFile
from prognosis_dask.cohort.names import STRUCTURE, Volume, composed, words_of
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.cohort.series import SeriesListing, dot, most_common_orientation, slice_normal
from prognosis_dask.errors import CaseError, Code, Problem, count
from prognosis_dask.objects.files import as_local
from prognosis_dask.volumes.files import volume_grid
from prognosis_dask.volumes.grid import Grid, fits, steps_of, to_index

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


#: Number of folders above a mask that are searched for a patient's name.
_FOLDERS = 4
_UID = re.compile(r"\d+(?:\.\d+){5,}")


@dataclass(frozen=True)
class VolumeLink:
    """A label map, the series that it was drawn on, and the words of its name that identify the patient.

    ``by_geometry``: its grid chose among several series; ``certain``: names or folders chose the patient;
    ``other_grid``: the warning if it names the series but has another grid within it.
    """

    mask: Volume
    listing: SeriesListing
    known: frozenset[str]
    by_geometry: bool
    certain: bool
    other_grid: str = ""


def link_volumes(
    masks: Sequence[tuple[Volume, Problem]], listings: Sequence[SeriesListing]
) -> tuple[list[VolumeLink], list[Problem]]:
    """Find the series of each label map without an image file.

    Candidates are the series that the names of the file or its folders refer to: by SeriesInstanceUID, by PatientID, by
    a folder that both share, by modality and sequence; all, where names say nothing. The label map must lie on the
    lattice of exactly one of them, in any order and direction of the axes; the same extent goes before a part of it. A
    mask that names one series and lies in it on another grid is linked, for jobs that resample masks.

    Returns
    -------
    The links, and the problems: those that come with the masks where no series is of a wanted modality, else
    ``MASK_WITHOUT_SERIES``, ``MASK_OTHER_GRID``, ``SERIES_AMBIGUOUS`` or what is wrong with the file.
    """
    if not listings:
        return [], [problem for _, problem in masks]
    search = _Search(listings)
    links: list[VolumeLink] = []
    problems: list[Problem] = []
    for mask, before in masks:
        try:
            links.append(search.series_of(mask))
        except CaseError as error:
            found = error.problem.of(where=mask.file.path)
            # "several image files match" explains more than "no series"
            nearer = before.code is Code.SERIES_AMBIGUOUS and found.code is Code.MASK_WITHOUT_SERIES
            problems.append(before if nearer else found)
    return _without_strangers(links, problems)


def listing_grid(listing: SeriesListing) -> Grid | None:
    """The grid that the slices' headers describe, gaps closed; None for a single slice, or one without a size."""
    orientation = most_common_orientation(s.orientation for s in listing.slices)
    alike = [
        s for s in listing.slices if max(abs(a - b) for a, b in zip(s.orientation, orientation, strict=True)) < 1e-3
    ]
    normal = slice_normal(orientation)
    ordered = sorted(alike, key=lambda s: dot(normal, s.position))
    heights = np.array([dot(normal, s.position) for s in ordered])
    gaps = np.diff(heights)
    gaps = gaps[gaps > 1e-3]
    if not len(gaps):
        return None
    slices = int(np.rint((heights[-1] - heights[0]) / np.median(gaps))) + 1
    first = ordered[0]
    axes = np.array([orientation[:3], orientation[3:], normal]).T
    return Grid(
        (first.size[1], first.size[0], slices),
        (first.pixel_spacing[1], first.pixel_spacing[0], float(heights[-1] - heights[0]) / (slices - 1)),
        first.position,
        tuple(axes.ravel().tolist()),
    )


def _centre_within(own: Grid, image: Grid) -> bool:
    half = (np.asarray(own.size, dtype=np.float64) - 1) / 2
    centre: FloatArray = np.asarray(own.origin, dtype=np.float64) + steps_of(own) @ half
    index = to_index(image, centre[None])[0]
    return bool((index > -0.5).all() and (index < np.asarray(image.size) - 0.5).all())


class _Search:
    """The series of a cohort, found by a file's name and grid."""

    def __init__(self, listings: Sequence[SeriesListing]) -> None:
        self._listings = listings
        self._grids = {listing.key: listing_grid(listing) for listing in listings}
        self._words = {one.patient_id: [w.folded for w in words_of(composed(one.patient_id))] for one in listings}

    def series_of(self, mask: Volume) -> VolumeLink:
        """The series of one label map; raises CaseError as :func:`link_volumes` lists."""
        with as_local(mask.file.path) as path:
            own = volume_grid(path, layers=True)
        named, known = self._named(mask)
        certain = len({one.patient_id for one in named}) < len(self._words)
        candidates = _of_sequence(mask, named)
        if not candidates:
            raise CaseError(
                Code.MASK_WITHOUT_SERIES,
                f"no {mask.modality} series {'of the sequence that it names ' if mask.sequences else ''}is there; "
                f"{_shown(named)}",
            )
        fitting = {one.key: fits(own, grid) for one in candidates if (grid := self._grids[one.key]) is not None}
        for kind in ("same", "part"):
            found = [one for one in candidates if fitting.get(one.key) == kind]
            if len(found) > 1:  # of two reconstructions, the one whose slices are in the mask's folder
                found = [one for one in found if Path(one.root) == Path(mask.file.path).parent] or found
            if len(found) == 1:
                return VolumeLink(mask, found[0], known, by_geometry=len(candidates) > 1, certain=certain)
            if found:
                raise CaseError(
                    Code.SERIES_AMBIGUOUS,
                    f"{len(found)} series have its grid, and its name does not say which: {_shown(found)}; put the "
                    "PatientID, or the SeriesInstanceUID, into the file's or its folder's name, or the file into the "
                    "folder of the series",
                )
        error = self._other_grid(own, candidates)
        grid = self._grids[candidates[0].key]
        if len(candidates) == 1 and (certain or known) and grid is not None and _centre_within(own, grid):
            return VolumeLink(mask, candidates[0], known, False, certain, error.problem.reason)
        raise error

    def _other_grid(self, own: Grid, candidates: Sequence[SeriesListing]) -> CaseError:
        seen = f"its grid ({_described(own)}) is that of none of {len(candidates)} series"
        if len(candidates) > 1:
            return CaseError(Code.MASK_WITHOUT_SERIES, f"{seen}: {_shown(candidates)}")
        grid = self._grids[candidates[0].key]
        other = _described(grid) if grid else "a single slice"
        reason = f"its grid ({_described(own)}) is not that of its only candidate series ({other})"
        advice = (
            "; image.resample_mask = true resamples it (nearest neighbour) where it names the series and lies in it"
        )
        return CaseError(Code.MASK_OTHER_GRID, f"{reason}: {_shown(candidates)}{advice}")

    def _named(self, mask: Volume) -> tuple[Sequence[SeriesListing], frozenset[str]]:
        """The series that the names of file and folders refer to, with the matching words; all if none."""
        path = composed(mask.file.path)
        uids = set(_UID.findall(path))
        by_uid = [listing for listing in self._listings if listing.series_uid in uids]
        if by_uid:
            return by_uid, frozenset(word.folded for uid in uids for word in words_of(uid))
        parts = [*Path(path).parts[-1 - _FOLDERS : -1], Path(path).name]
        spoken = [[word.folded for word in words_of(part)] for part in parts]
        scores = {
            patient: sum(map(len, words))
            for patient, words in self._words.items()
            if words and any(_within(words, part) for part in spoken)
        }
        best = {patient for patient, score in scores.items() if score == max(scores.values())}
        if not best and len(mask.core) == 1 and mask.core[0].isdigit():  # PANCREAS_0001 and label0001
            best = {patient for patient, words in self._words.items() if words[-1:] == [mask.core[0]]}
        if best:
            known = frozenset(word for patient in best for word in self._words[patient])
            return [listing for listing in self._listings if listing.patient_id in best], known
        return self._nearest(path), frozenset()

    def _nearest(self, path: str) -> Sequence[SeriesListing]:
        """The series whose folder shares most with the mask's."""
        own = Path(path).parts[:-1]
        depth = {one.key: _shared(own, Path(composed(one.root)).parts) for one in self._listings}
        deepest = max(depth.values())
        return [one for one in self._listings if depth[one.key] == deepest]


def _within(words: Sequence[str], part: Sequence[str]) -> bool:
    return any(list(part[start : start + len(words)]) == list(words) for start in range(len(part)))


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _of_sequence(mask: Volume, listings: Sequence[SeriesListing]) -> list[SeriesListing]:
    """Those of the modality and the sequence in the mask's name; of the sequence only if the series name theirs."""
    found = [one for one in listings if mask.modality in ("", one.modality)]
    if not mask.sequences:
        return found
    named = {one.key: sequence_of(one.description) for one in found}
    return [one for one in found if named[one.key] in mask.sequences] or [one for one in found if not named[one.key]]


def _shown(listings: Sequence[SeriesListing]) -> str:
    shown = "; ".join(
        f"{one.modality} {one.description!r}, {count(len(one.slices), 'slice')}, {one.key}" for one in listings[:3]
    )
    return shown + (f" and {len(listings) - 3} more" if len(listings) > 3 else "")


def _described(grid: Grid) -> str:
    size, spacing = " x ".join(map(str, grid.size)), " x ".join(f"{mm:.4g}" for mm in grid.spacing)
    return f"{size} voxels of {spacing} mm from {[round(mm, 1) for mm in grid.origin]}"


def _is_number(word: str) -> bool:
    """Whether a word may identify a patient: it has a digit, and does not number lesions."""
    plain = word.rstrip("0123456789")
    return plain != word and plain not in STRUCTURE


def _without_strangers(links: list[VolumeLink], problems: list[Problem]) -> tuple[list[VolumeLink], list[Problem]]:
    """Drop masks that geometry alone assigned to one series although their names are of different patients."""
    groups: dict[str, list[VolumeLink]] = defaultdict(list)
    for link in links:
        if not link.certain and not link.known and any(map(_is_number, link.mask.core)):
            groups[link.listing.key].append(link)
    strangers = [link for group in groups.values() if len({link.mask.core for link in group}) > 1 for link in group]
    for link in strangers:
        reason = (
            f"masks of several names have the grid of one series ({_shown([link.listing])}), and none of them names "
            f"its patient; put the PatientID into the file's or its folder's name"
        )
        problems.append(Problem(Code.SERIES_AMBIGUOUS, reason, where=link.mask.file.path))
    return [link for link in links if link not in strangers], problems
