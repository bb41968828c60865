"""The even-odd fill of polygons."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prognosis_dask.imaging.polygon import fill_even_odd

SHAPE = (1, 12, 14)


def fill(*contours: list[tuple[float, float]]) -> np.ndarray:
    return fill_even_odd([np.array(c, float) for c in contours], [0] * len(contours), SHAPE)[0]


def rectangle(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def is_inside(column: int, row: int, contours: list[list[tuple[float, float]]]) -> bool:
    """Slow and obvious: count the edges that a ray to the left crosses."""
    crossings = 0
    for contour in contours:
        for (x1, y1), (x2, y2) in zip(contour, contour[1:] + contour[:1], strict=True):
            if (y1 <= row) != (y2 <= row):
                if y1 > y2:
                    x1, y1, x2, y2 = x2, y2, x1, y1
                crossings += x1 + (row - y1) / (y2 - y1) * (x2 - x1) <= column
    return crossings % 2 == 1


# quarters of a pixel, so that vertices and edges often meet pixel centres
coordinate = st.integers(-12, 64).map(lambda n: n / 4)
polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9)


@given(st.lists(polygon, min_size=1, max_size=3))
def test_fill_equals_point_in_polygon_for_every_pixel(contours: list[list[tuple[float, float]]]) -> None:
    expected = [[is_inside(c, r, contours) for c in range(SHAPE[2])] for r in range(SHAPE[1])]
    np.testing.assert_array_equal(fill(*contours), expected)


@given(polygon, st.integers(1, 8))
def test_the_first_vertex_and_the_direction_do_not_matter(contour: list[tuple[float, float]], turn: int) -> None:
    turned = contour[turn % len(contour) :] + contour[: turn % len(contour)]
    np.testing.assert_array_equal(fill(contour), fill(turned[::-1]))


def test_a_contour_inside_another_cuts_a_hole_and_a_third_fills_it() -> None:
    ring = fill(rectangle(0.5, 0.5, 10.5, 10.5), rectangle(2.5, 2.5, 8.5, 8.5), rectangle(4.5, 4.5, 6.5, 6.5))
    assert ring.sum() == 10 * 10 - 6 * 6 + 2 * 2


def test_a_keyhole_equals_the_ring_that_it_stands_for() -> None:
    outer, inner = rectangle(0.5, 0.5, 10.5, 10.5), rectangle(3.5, 3.5, 7.3, 7.1)
    keyhole = [*outer, outer[0], inner[0], *inner[:0:-1], inner[0]]
    np.testing.assert_array_equal(fill(keyhole), fill(outer, inner))


def test_a_keyhole_with_its_channel_on_pixel_centres_leaves_no_line() -> None:
    keyhole = [(1, 1), (11, 1), (11, 11), (1, 11), (1, 5), (4, 5), (4, 8), (8, 8), (8, 4), (4, 4), (4, 5), (1, 5)]
    assert fill([(float(x), float(y)) for x, y in keyhole]).sum() == 10 * 10 - 4 * 4


def test_neighbours_that_share_an_edge_on_pixel_centres_share_no_pixel() -> None:
    left, right = fill(rectangle(1, 1, 5, 9)), fill(rectangle(5, 1, 9, 9))
    assert not (left & right).any()
    np.testing.assert_array_equal(left | right, fill(rectangle(1, 1, 9, 9)))


def test_a_contour_between_pixel_centres_encloses_nothing() -> None:
    assert not fill(rectangle(3.2, 3.2, 3.8, 3.8)).any()
    assert not fill_even_odd([], [], SHAPE).any()


def test_planes_are_filled_apart() -> None:
    square = np.array(rectangle(0.5, 0.5, 3.5, 3.5))
    filled = fill_even_odd([square, square], [0, 2], (3, 6, 6))
    assert filled.sum(axis=(1, 2)).tolist() == [9, 0, 9]
