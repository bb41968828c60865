"""Label maps (NIfTI, NRRD, MetaImage) drawn on a DICOM series: linked by the patient in their names and by grid."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.cohort.listing import SeriesListing, dot, most_common_orientation, slice_normal
from prognosis_dask.cohort.names import STRUCTURE, Volume, composed, words_of
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.errors import CaseError, Code, Problem, count
from prognosis_dask.objects.files import as_local
from prognosis_dask.volumes.files import volume_grid
from prognosis_dask.volumes.grid import Grid, fits, steps_of, to_index

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
                f"{_listed(named)}",
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
                    f"{len(found)} series have its grid, and its name does not say which: {_listed(found)}; put the "
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
            return CaseError(Code.MASK_WITHOUT_SERIES, f"{seen}: {_listed(candidates)}")
        grid = self._grids[candidates[0].key]
        other = _described(grid) if grid else "a single slice"
        reason = f"its grid ({_described(own)}) is not that of its only candidate series ({other})"
        advice = (
            "; image.resample_mask = true resamples it (nearest neighbour) where it names the series and lies in it"
        )
        return CaseError(Code.MASK_OTHER_GRID, f"{reason}: {_listed(candidates)}{advice}")

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


def _listed(listings: Sequence[SeriesListing]) -> str:
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
            f"masks of several names have the grid of one series ({_listed([link.listing])}), and none of them names "
            f"its patient; put the PatientID into the file's or its folder's name"
        )
        problems.append(Problem(Code.SERIES_AMBIGUOUS, reason, where=link.mask.file.path))
    return [link for link in links if link not in strangers], problems
