"""Empty slices within a mask: planes that are missing, or the space between two lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import CaseError, Code, Problem, collected_warnings
from prognosis_dask.imaging.gaps import settle_gaps
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.volumes.grid import Grid
from tests.dicom_helpers import case_of, problem_of, write_rtstruct, write_series

SHAPE = (40, 40, 40)
GRID = Grid(SHAPE[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def ball(centre: tuple[float, float, float], radius: float, stretch: float = 1.0) -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    return ((z - centre[0]) / stretch) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def without(mask: np.ndarray, *slices: int) -> np.ndarray:
    left = mask.copy()
    left[list(slices)] = False
    return left


def settle(mask: np.ndarray, *, fill: bool = False, keep: bool = False) -> tuple[np.ndarray, list[Problem]]:
    with collected_warnings() as said:
        settled = settle_gaps(mask, GRID, fill=fill, keep=keep)
    return settled, said


def refused(mask: np.ndarray) -> str:
    with pytest.raises(CaseError) as caught:
        settle(mask)
    assert caught.value.problem.code is Code.MASK_GAPS
    return caught.value.problem.reason


@given(
    radius=st.floats(4.0, 12.0),
    centre=st.tuples(*[st.floats(17.0, 22.0)] * 3),
    stretch=st.floats(0.8, 1.4),
    first=st.floats(0.15, 0.8),
    thick=st.integers(1, 3),
)
def test_planes_missing_from_a_lesion_are_a_problem_that_names_them(
    radius: float, centre: tuple[float, float, float], stretch: float, first: float, thick: int
) -> None:
    whole = ball(centre, radius, stretch)
    drawn = np.flatnonzero(whole.any(axis=(1, 2)))
    cut = [int(drawn[int(first * len(drawn))]) + more for more in range(thick)]
    if cut[-1] >= drawn[-1] - thick or cut[0] <= drawn[0] + thick:
        return
    reason = refused(without(whole, *cut))
    assert (f"({cut[0]}-{cut[-1]})" if thick > 1 else f"({cut[0]})") in reason
    filled, said = settle(without(whole, *cut), fill=True)
    assert [warning.code for warning in said] == [Code.MASK_GAPS]
    # a shape between sections is a guess, the better the larger they are: most of what was lost comes back
    lost = np.count_nonzero(whole[cut])
    assert abs(np.count_nonzero(filled) - np.count_nonzero(whole)) <= 0.25 * lost + 0.02 * np.count_nonzero(whole)


@pytest.mark.parametrize("every", [2, 3, 4])
def test_a_mask_on_a_part_of_the_slices_is_a_problem_and_is_filled_by_shape(every: int) -> None:
    whole = ball((19.5, 20.0, 19.0), 12.0)
    striped = np.zeros_like(whole)
    striped[::every] = whole[::every]
    assert f"of its {np.count_nonzero(striped):,} voxels" in refused(striped)
    filled, _ = settle(striped, fill=True)
    drawn = np.flatnonzero(striped.any(axis=(1, 2)))
    span = whole[drawn[0] : drawn[-1] + 1]
    assert abs(np.count_nonzero(filled) - np.count_nonzero(span)) < 0.02 * np.count_nonzero(span)
    kept, said = settle(striped, keep=True)
    np.testing.assert_array_equal(kept, striped)
    assert said == []


def test_two_pairs_of_slices_out_of_three_are_a_problem() -> None:
    whole = ball((19.5, 20.0, 19.0), 12.0)
    reason = refused(without(whole, *range(0, 40, 3)))
    assert "mask is empty on" in reason


@given(
    radii=st.tuples(st.floats(2.5, 8.0), st.floats(2.5, 8.0)),
    aside=st.floats(0.0, 12.0),
    between=st.integers(1, 12),
)
def test_two_lesions_above_one_another_are_used_as_they_are(
    radii: tuple[float, float], aside: float, between: int
) -> None:
    low, high = radii
    both = np.zeros((60, 40, 40), dtype=bool)
    z, y, x = np.indices(both.shape)
    for height, column, radius in ((low + 1, 14.3, low), (2 * low + between + 2 + high, 14.3 + aside, high)):
        both |= (z - height) ** 2 + (y - 19.8) ** 2 + (x - column) ** 2 <= radius**2
    settled, said = settle(both)
    np.testing.assert_array_equal(settled, both)
    below = np.flatnonzero(both.any(axis=(1, 2)))
    gap = int(np.flatnonzero(np.diff(below) > 1)[0])
    over = (both[below[gap]] & both[below[gap + 1]]).any()
    assert [warning.code for warning in said] == ([Code.MASK_GAPS] if over else [])


def test_a_speck_beside_a_lesion_costs_the_case_nothing_but_is_told() -> None:
    whole = ball((15.0, 20.0, 20.0), 12.0)
    whole[29, 20, 20:22] = True
    settled, said = settle(whole)
    np.testing.assert_array_equal(settled, whole)
    assert [warning.code for warning in said] == [Code.MASK_GAPS]


@given(radius=st.floats(6.0, 9.0), slices_off=st.integers(-2, 2))
def test_a_contour_that_one_of_two_lesions_lacks_is_told(radius: float, slices_off: int) -> None:
    """The slice is not empty: the other lesion is drawn on it. Of a smaller ball a slice is below 1 % of the mask."""
    pair = ball((19.5, 20.0, 10.0), radius) | ball((19.5, 20.0, 30.0), 9.0)
    assert settle(pair)[1] == []
    left = pair.copy()
    left[20 + slices_off, :, :20] = False
    settled, said = settle(left)
    np.testing.assert_array_equal(settled, left)
    assert [warning.code for warning in said] == [Code.MASK_GAPS]
    assert f"on 1 slice ({20 + slices_off})" in said[0].reason


def test_a_hollow_or_branching_lesion_lacks_nothing() -> None:
    shell = ball((19.5, 20.0, 20.0), 14.0) & ~ball((19.5, 20.0, 20.0), 9.0)
    fork = ball((19.5, 20.0, 20.0), 14.0) & ~ball((19.5, 20.0, 34.0), 11.0)
    for mask in (shell, fork):
        assert settle(mask)[1] == []


def test_a_mask_without_empty_slices_is_left_alone() -> None:
    whole = ball((19.0, 20.0, 20.0), 8.0)
    assert settle(whole)[0] is whole


def test_contours_on_every_second_slice_are_a_problem_until_the_job_fills_them(tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", np.full((20, 32, 32), -1000, np.int16), spacing=(1.0, 1.0, 3.0))
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)

    def circle(height: float) -> np.ndarray:
        radius = np.sqrt(14.0**2 - (height - 27.0) ** 2)
        return np.stack([15.7 + radius * np.cos(angle), 15.2 + radius * np.sin(angle), 0 * angle + height], axis=1)

    def case(heights: list[int]) -> Case:
        return case_of(series, write_rtstruct(tmp_path / "rs.dcm", [circle(h) for h in heights]), (1,), tmp_path)

    full = sitk.GetArrayFromImage(load_roi(case(list(range(15, 40, 3))), ImageSection()).mask)
    striped = case(list(range(15, 40, 6)))
    assert problem_of(lambda: load_roi(striped, ImageSection())) is Code.MASK_GAPS
    with collected_warnings():
        filled = sitk.GetArrayFromImage(load_roi(striped, ImageSection(fill_gaps=True)).mask)
        kept = sitk.GetArrayFromImage(load_roi(striped, ImageSection(keep_gaps=True)).mask)
    assert kept.sum() < 0.6 * full.sum()
    assert abs(int(filled.sum()) - int(full.sum())) < 0.02 * full.sum()
    one = case([height for height in range(15, 40, 3) if height != 24])
    assert problem_of(lambda: load_roi(one, ImageSection())) is Code.MASK_GAPS


@pytest.mark.parametrize(("axis", "name"), [(1, "row"), (2, "column")])
def test_a_mask_drawn_on_every_third_slice_of_another_direction_is_told(axis, name):
    mask = ball((20, 20, 20), 9)
    np.moveaxis(mask, axis, 0)[np.arange(40) % 3 != 0] = False
    settled, (warning,) = settle(mask)
    assert warning.code is Code.MASK_GAPS
    assert f"the mask has voxels on 6 of 16 {name}s, no two of them neighbours" in warning.reason
    assert np.array_equal(settled, mask)
