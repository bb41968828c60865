"""One SeriesInstanceUID, several stacks of slices: a scout among them, time points, echoes, acquisitions."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from prognosis_dask.cohort.headers import MARKS, ImageHeader
from prognosis_dask.cohort.planes import dot, slice_normal

#: Slices nearer than this are at the same place: no scanner makes slices so thin.
SAME_POSITION_MM = 0.01
#: Direction cosines and relative spacings that differ by more are another stack's; what differs by less is one stack's,
#: to be judged when it is read.
OTHER_PLANE = 0.01
#: How far distances between slices may differ, relative to the usual one, in a stack that needs no splitting.
EVEN = 0.01
#: A stack of overlapping acquisitions needs as many slices to be told from chance.
LEAST_SLICES = 3


def split_series(instances: Sequence[ImageHeader]) -> list[tuple[str, list[ImageHeader]]]:
    """The stacks of a series, each with what tells it from the others; one without a name where there is but one.

    Told apart are: images of another direction, spacing or size (a scout); several images at each position whose
    headers differ in one of :data:`~prognosis_dask.cohort.headers.MARKS`, or in a combination of them (time points,
    echoes, b-values, reconstructions); overlapping acquisitions whose slices are even only when they are parted.
    """
    planes = _planes(instances)
    stacks = []
    for number, plane in enumerate(planes, start=1):
        for name, part in _parted(plane):
            turned = f"direction {number} of {len(planes)}" if len(planes) > 1 else ""
            stacks.append((", ".join(filter(None, (turned, name))), part))
    return stacks


def _planes(instances: Sequence[ImageHeader]) -> list[list[ImageHeader]]:
    """Images of one direction, spacing and size together; the largest group first."""
    groups: list[list[ImageHeader]] = []
    for header in instances:
        for group in groups:
            if _same_plane(group[0], header):
                group.append(header)
                break
        else:
            groups.append([header])
    return sorted(groups, key=lambda group: (-len(group), min(header.sop_uid for header in group)))


def _same_plane(one: ImageHeader, other: ImageHeader) -> bool:
    turned = max(abs(a - b) for a, b in zip(one.orientation, other.orientation, strict=True))
    scaled = max(abs(a / b - 1) for a, b in zip(one.pixel_spacing, other.pixel_spacing, strict=True))
    return one.size == other.size and turned <= OTHER_PLANE and scaled <= OTHER_PLANE


def _parted(plane: list[ImageHeader]) -> list[tuple[str, list[ImageHeader]]]:
    heights = _heights(plane)
    most = _most_at_one_place(heights)
    if most == 1 and _is_even(heights):
        return [("", plane)]
    for names, groups in _ways(plane):
        parts = list(groups.values())
        if _is_sound(parts, most):
            return [
                (" ".join(f"{name} {value}" for name, value in zip(names, values, strict=True)), groups[values])
                for values in sorted(groups)
            ]
    return [("", plane)]


def _ways(plane: list[ImageHeader]) -> Iterator[tuple[tuple[str, ...], dict[tuple[str, ...], list[ImageHeader]]]]:
    """Every way to part the images by up to three of the marks in which they differ."""
    marks = {header: dict(zip(MARKS, header.marks.split("\t"), strict=True)) for header in plane if header.marks}
    if len(marks) < len(plane):
        return
    differing = [name for name in MARKS if len({own[name] for own in marks.values()}) > 1]
    for number in (1, 2, 3):
        for names in itertools.combinations(differing, number):
            groups: dict[tuple[str, ...], list[ImageHeader]] = defaultdict(list)
            for header in plane:
                groups[tuple(marks[header][name] for name in names)].append(header)
            if len(groups) < len(plane):
                yield names, groups


def _is_sound(parts: list[list[ImageHeader]], most: int) -> bool:
    """Whether each part is a stack: no two slices in one place, and as many parts as images lie on each other."""
    heights = [_heights(part) for part in parts]
    if any(_most_at_one_place(own) > 1 for own in heights):
        return False
    if len(parts) == most and most > 1:
        return True
    even = all(len(own) >= LEAST_SLICES and _is_even(own) for own in heights)
    return even and _overlap(heights)


def _overlap(heights: list[list[float]]) -> bool:
    spans = sorted((own[0], own[-1]) for own in heights)
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))


def _heights(part: Sequence[ImageHeader]) -> list[float]:
    normal = slice_normal(part[0].orientation)
    return sorted(dot(normal, header.position) for header in part)


def _most_at_one_place(heights: Sequence[float]) -> int:
    """The largest number of slices at one height."""
    places = Counter(
        itertools.accumulate(b - a > SAME_POSITION_MM for a, b in itertools.pairwise([heights[0], *heights]))
    )
    return max(places.values())


def _is_even(heights: Sequence[float]) -> bool:
    gaps = sorted(b - a for a, b in itertools.pairwise(heights))
    return not gaps or gaps[-1] - gaps[0] <= EVEN * gaps[len(gaps) // 2] + SAME_POSITION_MM
