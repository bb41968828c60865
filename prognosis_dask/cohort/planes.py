"""Directions and heights of image planes, in plain numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from prognosis_dask.cohort.headers import Point


def most_common_orientation(orientations: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """The orientation that most images of a series have (a scout may have got among them)."""
    # rounded: scanners write one direction with varying last digits
    counts = Counter(tuple(round(value, 4) for value in orientation) for orientation in orientations)
    return min(counts, key=lambda orientation: (-counts[orientation], orientation))


def slice_normal(orientation: tuple[float, ...]) -> Point:
    """Unit normal of the image plane: row direction x column direction (DICOM PS3.3 C.7.6.2.1.1).

    >>> slice_normal((1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    (0.0, 0.0, 1.0)
    """
    a, b = orientation[:3], orientation[3:]
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    length = math.sqrt(dot(cross, cross)) or 1.0
    return cross[0] / length, cross[1] / length, cross[2] / length


def dot(a: Point, b: Point) -> float:
    """Scalar product of two vectors in mm."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
