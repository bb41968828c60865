"""Which image series a structure belongs to: by the UIDs it names, else by where it lies."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prognosis_dask.cohort.headers import MaskHeader, Point, Structure
from prognosis_dask.cohort.listing import SeriesListing, SliceFile
from prognosis_dask.cohort.planes import dot, most_common_orientation, slice_normal
from prognosis_dask.counting import count
from prognosis_dask.errors import CaseError, Code

#: A contour lies on a slice when it is nearer than this part of the slice distance. Contours are written with the
#: slice's own position; what is further away belongs to another series.
ON_SLICE = 0.1
#: Part of the contours that must lie on the slices and within their frame; a few may reach beyond the slab.
FITS = 0.9
#: Two series whose share of outlined slices differs by less than this cannot be told apart.
CLEAR_LEAD = 0.1


@dataclass(frozen=True)
class Link:
    """The series of a structure (its listing's key), and whether the choice rests on UIDs or only on geometry."""

    series_uid: str
    by_geometry: bool


class Catalogue:
    """The image series of a cohort, findable by every UID that a mask may name."""

    def __init__(self, listings: Iterable[SeriesListing]) -> None:
        self.series = {listing.key: listing for listing in listings}
        self._stacks: dict[str, list[str]] = defaultdict(list)
        self._by_instance: dict[str, list[str]] = defaultdict(list)
        for key, listing in self.series.items():
            self._stacks[listing.series_uid].append(key)
            for sop_uid in dict.fromkeys(s.sop_uid for s in listing.slices):
                self._by_instance[sop_uid].append(key)
        self._by_place: dict[tuple[str, str], list[str]] = defaultdict(list)
        for uid, listing in self.series.items():
            self._by_place[_same_patient(listing.patient_id), listing.frame_of_reference_uid].append(uid)

    def link(self, mask: MaskHeader, structure: Structure, modalities: Sequence[str]) -> Link:
        """The series of one structure.

        In this order: the series of the instances that its own contours or frames name; the series that the mask
        names; the series of the instances that the mask names; the patient's series in the same frame of reference.
        Where one of these steps finds several, those of the wanted modalities count, and geometry decides among them.

        Raises
        ------
        CaseError
            ``MASK_WITHOUT_SERIES`` when there is none, ``SERIES_AMBIGUOUS`` when geometry cannot decide.
        """
        named = (
            self._series_of(structure.sop_uids),
            [key for uid in mask.series_uids for key in self._named_stacks(uid, mask)],
            self._series_of(mask.sop_uids),
        )
        for found in named:
            wanted = self._of(modalities, found) or found
            if len(wanted) == 1:
                return Link(wanted[0], by_geometry=False)
            if wanted:
                return Link(self._choose(wanted, mask, structure), by_geometry=True)
        near = [
            uid
            for frame in sorted(mask.frame_of_reference_uids)
            for uid in self._of(modalities, self._by_place.get((_same_patient(mask.patient_id), frame), ()))
        ]
        if not near:
            series = ", ".join(mask.series_uids) or "none"
            frames = ", ".join(sorted(mask.frame_of_reference_uids)) or "none"
            raise CaseError(
                Code.MASK_WITHOUT_SERIES,
                f"no image found that it refers to (series: {series}; frame of reference: {frames}); "
                f"add the folder that holds the series",
                where=mask.file.path,
            )
        return Link(self._choose(near, mask, structure), by_geometry=True)

    def _of(self, modalities: Sequence[str], uids: Iterable[str]) -> list[str]:
        return [uid for uid in uids if self.series[uid].modality in modalities]

    def _series_of(self, sop_uids: Iterable[str]) -> list[str]:
        return sorted({key for uid in sop_uids for key in self._by_instance.get(uid, ())})

    def _named_stacks(self, series_uid: str, mask: MaskHeader) -> list[str]:
        """The stacks of a series that a mask names: those of the instances that it names, else all."""
        stacks = self._stacks.get(series_uid, [])
        seen = set(self._series_of(mask.sop_uids)) if len(stacks) > 1 else set()
        return [key for key in stacks if key in seen] or stacks

    def _choose(self, uids: Sequence[str], mask: MaskHeader, structure: Structure) -> str:
        """The one series on whose slices the structure lies; if on several's, the one it outlines most densely."""
        shares = {uid: outlined_share(structure.points, self.series[uid]) for uid in dict.fromkeys(uids)}
        ranked = sorted((uid for uid in shares if shares[uid] > 0), key=lambda uid: (-shares[uid], uid))
        if len(ranked) == 1 or (len(ranked) > 1 and shares[ranked[0]] - shares[ranked[1]] > CLEAR_LEAD):
            return ranked[0]
        listed = "; ".join(self._describe(uid) for uid in (ranked or shares))
        if ranked:
            raise self._ambiguous(ranked, structure, mask)
        reason = f"{structure.names[0]!r} lies on the slices of none of the series it may belong to: {listed}"
        raise CaseError(Code.MASK_WITHOUT_SERIES, reason, where=mask.file.path)

    def _ambiguous(self, keys: Sequence[str], structure: Structure, mask: MaskHeader) -> CaseError:
        if len({self.series[key].series_uid for key in keys}) == 1:
            stacks = "; ".join(sorted(self.series[key].stack for key in keys))
            reason = (
                f"{structure.names[0]!r} fits {len(keys)} images at each place of one series (time points, echoes or "
                f"acquisitions: {stacks}), and the mask does not name the one that it was drawn on; index one alone"
            )
        else:
            listed = "; ".join(map(self._describe, keys))
            reason = f"{structure.names[0]!r} fits several series equally well: {listed}; "
            reason += "name the modality, or leave one out"
        return CaseError(Code.SERIES_AMBIGUOUS, reason, where=mask.file.path)

    def _describe(self, key: str) -> str:
        listing = self.series[key]
        stack = f", {listing.stack}" if listing.stack else ""
        slices = count(len(listing.slices), "slice")
        return f"{listing.modality} {listing.description!r}, {slices}{stack}, {listing.series_uid}"


def outlined_share(points: Sequence[Point], listing: SeriesListing) -> float:
    """How densely a structure outlines a series: outlined slices over slices between its first and its last one.

    ``points`` (mm) hold one point of each contour or frame. Zero: fewer than nine tenths of them lie on the slices
    and within their frame, so that the structure does not belong to the series.
    """
    orientation = most_common_orientation(s.orientation for s in listing.slices)
    slices = [s for s in listing.slices if _alike(s.orientation, orientation)]
    normal = slice_normal(orientation)
    heights = [dot(normal, s.position) for s in slices]
    gaps = sorted(b - a for a, b in itertools.pairwise(heights) if b - a > 1e-3)
    tolerance = ON_SLICE * (gaps[len(gaps) // 2] if gaps else 1.0)
    hit: list[int] = []
    for point in points:
        index = _nearest(heights, dot(normal, point))
        s = slices[index]
        if abs(heights[index] - dot(normal, point)) <= tolerance and _within(point, s, orientation):
            hit.append(index)
    if not points or len(hit) < FITS * len(points):
        return 0.0
    return len(set(hit)) / (max(hit) - min(hit) + 1)


def _nearest(heights: Sequence[float], height: float) -> int:
    right = bisect.bisect_left(heights, height)
    near = [index for index in (right - 1, right) if 0 <= index < len(heights)]
    return min(near, key=lambda index: abs(heights[index] - height))


def _within(point: Point, s: SliceFile, orientation: tuple[float, ...]) -> bool:
    offset = (point[0] - s.position[0], point[1] - s.position[1], point[2] - s.position[2])
    rows, columns = s.size
    row_spacing, column_spacing = s.pixel_spacing
    along_row = dot(offset, (orientation[0], orientation[1], orientation[2])) / column_spacing
    along_column = dot(offset, (orientation[3], orientation[4], orientation[5])) / row_spacing
    return -0.5 <= along_row <= columns - 0.5 and -0.5 <= along_column <= rows - 0.5


def _alike(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True))


def _same_patient(patient_id: str) -> str:
    return "".join(patient_id.split()).casefold()
