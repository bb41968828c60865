"""Link a structure to its image series: by the UIDs that it references, else by geometry."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prognosis_dask.cohort.clinical import patient_key
from prognosis_dask.cohort.headers import ImageHeader, MaskHeader, Point, Structure
from prognosis_dask.cohort.series import SeriesListing, SliceFile, dot, most_common_orientation, slice_normal
from prognosis_dask.errors import CaseError, Code, count

#: A contour lies on a slice if it is nearer than this fraction of the slice distance. Contours are written with the
#: position of their slice; those further away belong to another series.
ON_SLICE = 0.1
#: Fraction of the contours that must lie on the slices and within the image; a few may extend beyond it.
FITS = 0.9
#: The same for a mask with a single candidate series: contours within half a slice go to the nearest slice, those
#: beyond the image are dropped, both with a warning when the mask is read.
ON_ONLY_SERIES = 0.5
FITS_ONLY_SERIES = 0.5
#: Series whose fractions of outlined slices differ by less than this cannot be distinguished.
CLEAR_LEAD = 0.1
#: Number of outlined slices from which empty slices between all of them are a pattern (thicker slices), not the space
#: between two lesions.
_RHYTHM = 3


@dataclass(frozen=True)
class Link:
    """The series of a structure (its listing's key), and whether it was chosen by geometry rather than UIDs."""

    series_uid: str
    by_geometry: bool


class Catalogue:
    """The image series of a cohort, indexed by every UID that a mask may reference."""

    def __init__(self, listings: Iterable[SeriesListing], faulty: Iterable[ImageHeader] = ()) -> None:
        """``faulty``: the images that are no part of any listing, each with its ``fault``."""
        self._faulty: dict[str, list[ImageHeader]] = defaultdict(list)
        self._faults: dict[str, str] = {}
        for header in faulty:
            self._faulty[header.series_uid].append(header)
            self._faults |= {header.series_uid: header.fault, header.sop_uid: header.fault}
        self.series = {listing.key: listing for listing in listings}
        self._stacks: dict[str, list[str]] = defaultdict(list)
        self._by_instance: dict[str, list[str]] = defaultdict(list)
        for key, listing in self.series.items():
            self._stacks[listing.series_uid].append(key)
            named = [name for s in listing.slices for name in (s.sop_uid, f"{s.sop_uid}#{s.frame}" if s.frame else "")]
            for name in dict.fromkeys(filter(None, named)):
                self._by_instance[name].append(key)
        self._by_place: dict[tuple[str, str], list[str]] = defaultdict(list)
        for uid, listing in self.series.items():
            self._by_place[patient_key(listing.patient_id), listing.frame_of_reference_uid].append(uid)

    def link(self, mask: MaskHeader, structure: Structure, modalities: Sequence[str]) -> Link:
        """The series of one structure.

        In this order: the series of the instances that its own contours or frames name; the series that the mask
        names; the series of the instances that the mask names; the patient's series in the same frame of reference. A
        mask that names nothing of these belongs to the patient's series where there is only one.
        If a step finds several, geometry decides among those of the requested modalities.

        Raises
        ------
        CaseError
            ``MASK_WITHOUT_SERIES`` when there is none, or when the structure was drawn on an image of its series that
            cannot be used; ``SERIES_AMBIGUOUS`` when geometry cannot decide.
        """
        link = self._find(mask, structure, modalities)
        lost = self._lost(mask, structure, self.series[link.series_uid])
        if lost:
            reason = (
                f"{structure.names[0]!r} is drawn on {count(len(lost), 'image')} of its series that cannot be used: "
                f"{lost[0].fault} ({lost[0].file.path})"
            )
            raise CaseError(Code.MASK_WITHOUT_SERIES, reason, where=mask.file.path)
        return link

    def _lost(self, mask: MaskHeader, structure: Structure, listing: SeriesListing) -> list[ImageHeader]:
        """The unusable images of the series that the structure is, or may be, drawn on."""
        of_series = self._faulty.get(listing.series_uid, [])
        if not of_series or structure.sop_uids:
            return [header for header in of_series if header.sop_uid in structure.sop_uids]
        if len(_hits(structure.points, listing, ON_ONLY_SERIES)) == len(structure.points):
            return []
        return [header for header in of_series if not mask.sop_uids or header.sop_uid in mask.sop_uids]

    def _find(self, mask: MaskHeader, structure: Structure, modalities: Sequence[str]) -> Link:
        if structure.points and not self._refers(mask, structure):
            alone = self._only_series(mask)
            if alone:
                return Link(self._choose(alone, mask, structure), by_geometry=True)
        named = (
            self._series_of(structure.sop_uids),
            self._in_frame(mask, structure, [k for uid in mask.series_uids for k in self._named_stacks(uid, mask)]),
            self._in_frame(mask, structure, self._series_of(mask.sop_uids)),
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
            for uid in self._of(modalities, self._by_place.get((patient_key(mask.patient_id), frame), ()))
        ]
        near = self._in_frame(mask, structure, near)
        if not near:
            series = ", ".join(mask.series_uids) or "none"
            frames = ", ".join(sorted(mask.frame_of_reference_uids)) or "none"
            fault = self._fault(mask, structure)
            reason = (
                f"the images that it references were found, but cannot be used: {fault}"
                if fault
                else f"no image found that it references (series: {series}; frame of reference: {frames}); add the "
                f"folder that holds the series"
            )
            raise CaseError(Code.MASK_WITHOUT_SERIES, reason, where=mask.file.path)
        return Link(self._choose(near, mask, structure), by_geometry=True)

    def absent(self, mask: MaskHeader) -> bool:
        """Whether the mask references series or instances, none of which was found."""
        named = [*mask.series_uids, *mask.sop_uids]
        return bool(named) and not (self._series_of(mask.sop_uids) or any(uid in self._stacks for uid in named))

    def _refers(self, mask: MaskHeader, structure: Structure) -> bool:
        """Whether the mask references images or a frame of reference."""
        return bool(mask.series_uids or mask.sop_uids or structure.sop_uids or mask.frame_of_reference_uids)

    def _in_frame(self, mask: MaskHeader, structure: Structure, keys: list[str]) -> list[str]:
        """Those in the structure's own frame of reference, if the mask declares several.

        Coordinates in another frame of reference mean another position.
        """
        own = structure.frame_uid
        if own not in mask.declared_frames or len(mask.declared_frames) < 2:
            return keys
        return [key for key in keys if self.series[key].frame_of_reference_uid in ("", own)]

    def _only_series(self, mask: MaskHeader) -> list[str]:
        """The stacks of the patient's series, if the patient has only one series of any modality."""
        patient = patient_key(mask.patient_id)
        keys = [key for (owner, _), found in self._by_place.items() if owner == patient for key in found]
        return keys if len({self.series[key].series_uid for key in keys}) == 1 else []

    def _fault(self, mask: MaskHeader, structure: Structure) -> str:
        """Why the images that the structure references cannot be used although they were found."""
        named = (*mask.series_uids, *sorted(structure.sop_uids), *sorted(mask.sop_uids))
        return next((self._faults[uid] for uid in named if uid in self._faults), "")

    def _of(self, modalities: Sequence[str], uids: Iterable[str]) -> list[str]:
        return [uid for uid in uids if self.series[uid].modality in modalities]

    def _series_of(self, sop_uids: Iterable[str]) -> list[str]:
        return sorted({key for uid in sop_uids for key in self._instance(uid)})

    def _instance(self, name: str) -> Sequence[str]:
        """The stacks of an instance or of one of its frames; some writers number the frame of single-frame images."""
        whole = name.partition("#")[0]
        return self._by_instance.get(name, self._by_instance.get(whole, []))

    def _named_stacks(self, series_uid: str, mask: MaskHeader) -> list[str]:
        """The stacks of a series that a mask names: those of the instances that it names, else all."""
        stacks = self._stacks.get(series_uid, [])
        seen = set(self._series_of(mask.sop_uids)) if len(stacks) > 1 else set()
        return [key for key in stacks if key in seen] or stacks

    def _choose(self, uids: Sequence[str], mask: MaskHeader, structure: Structure) -> str:
        """The one series on whose slices the structure lies; of several, the one it outlines most densely."""
        shares = {uid: outlined_share(structure.points, self.series[uid]) for uid in dict.fromkeys(uids)}
        if len(shares) == 1 and not any(shares.values()):
            [uid] = shares
            shares[uid] = outlined_share(structure.points, self.series[uid], ON_ONLY_SERIES, FITS_ONLY_SERIES)
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
                f"acquisitions: {stacks}), and the mask does not say on which one it was drawn; index one alone"
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


def outlined_share(
    points: Sequence[Point], listing: SeriesListing, within: float = ON_SLICE, fits: float = FITS
) -> float:
    """How densely a structure outlines a series: outlined slices over slices between its first and its last one.

    ``points`` (mm) hold one point of each contour or frame. Zero: fewer than ``fits`` of them lie on the slices (to
    ``within`` of a slice distance) and within their frame, so that the structure does not belong to the series.
    """
    hit = _hits(points, listing, within)
    if not points or len(hit) < fits * len(points):
        return 0.0
    return len(set(hit)) / (max(hit) - min(hit) + 1)


def beside_their_images(structures: Sequence[Structure], listing: SeriesListing) -> int:
    """How many contours or frames of structures lie on another slice of a series than that of the image they name."""
    normal = slice_normal(most_common_orientation(s.orientation for s in listing.slices))
    heights = {f"{s.sop_uid}#{s.frame}" if s.frame else s.sop_uid: dot(normal, s.position) for s in listing.slices}
    along = sorted(heights.values())
    if len(along) < 2:
        return 0
    nearer = ON_SLICE * (along[-1] - along[0]) / (len(along) - 1)
    named = [pair for one in structures for pair in zip(one.points, one.drawn_on, strict=False)]
    known = [(dot(normal, point), heights.get(name, heights.get(name.partition("#")[0]))) for point, name in named]
    return sum(
        height is not None and abs(height - own) - abs(along[_nearest(along, own)] - own) > nearer
        for own, height in known
    )


def left_out(points: Sequence[Point], listing: SeriesListing) -> str:
    """How many slices a structure covers if no two neighbouring ones are outlined; empty otherwise."""
    drawn = sorted(set(_hits(points, listing, ON_ONLY_SERIES)))
    if len(drawn) < _RHYTHM or min(b - a for a, b in itertools.pairwise(drawn)) < 2:
        return ""
    return f"{len(drawn)} of the {drawn[-1] - drawn[0] + 1} slices from its first to its last"


def _hits(points: Sequence[Point], listing: SeriesListing, within: float) -> list[int]:
    """The slices that the points lie on, of those in the series' own orientation."""
    orientation = most_common_orientation(s.orientation for s in listing.slices)
    slices = [s for s in listing.slices if _alike(s.orientation, orientation)]
    normal = slice_normal(orientation)
    heights = [dot(normal, s.position) for s in slices]
    gaps = sorted(b - a for a, b in itertools.pairwise(heights) if b - a > 1e-3)
    tolerance = within * (gaps[len(gaps) // 2] if gaps else 1.0)
    hit: list[int] = []
    for point in points:
        index = _nearest(heights, dot(normal, point))
        s = slices[index]
        if abs(heights[index] - dot(normal, point)) <= tolerance and _within(point, s, orientation):
            hit.append(index)
    return hit


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
