"""Heads that lie otherwise than their header says: 24 ways are compared, by what the brain shares with the template."""

from __future__ import annotations

import numpy as np
import pytest

from prognosis_dask.brain.orient import axial, meaning, shared_by_turn, turned, turns
from prognosis_dask.brain.preprocess import kind_of, preprocess, quality, turned_against_header
from prognosis_dask.brain.strip import aligned
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError
from prognosis_dask.imaging.geometry import one_thread
from tests.heads import read_head, read_mask


def test_there_are_24_turns_and_no_mirror_image():
    found = turns()
    assert len({tuple(matrix.ravel()) for matrix in found}) == 24
    assert all(np.linalg.det(matrix) == pytest.approx(1) for matrix in found)
    assert np.array_equal(found[0], np.eye(3))


def test_a_turn_is_told_by_where_the_top_and_the_face_point():
    assert meaning(np.eye(3)) == "with its top towards the top and its face towards the front"
    assert (
        meaning(np.diag([-1.0, 1.0, -1.0]))
        == "upside down, with its top towards the feet and its face towards the front"
    )
    assert meaning(np.diag([-1.0, -1.0, 1.0])) == "with its top towards the top and its face towards the back"


@pytest.mark.parametrize("name", ["FG6692_T1", "FG6692_FLAIR", "p04_1_T1W"])
def test_a_real_head_fits_best_as_it_lies(shared_data, name):
    image = axial(read_head(shared_data, name))
    with one_thread():
        shared = shared_by_turn(image, read_mask(shared_data, name, image), kind_of(sequence_of(name)))
    assert shared[0] > 1.15 * max(shared[1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FG6692_T1", "TCGA-02-0054_T1"])
def test_a_head_turned_a_quarter_is_told_though_the_template_was_fitted_to_it(shared_data, name):
    """The mask of the built-in strip looks right, and so do its other figures."""
    image = axial(turned(read_head(shared_data, name), turns()[2], np.zeros(3)))
    with pytest.raises(CaseError, match=r"orientation: .*top towards the front and its face towards the feet"):
        preprocess({"T1": image}, BrainSection(skull_strip="template"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("FG6692_T1", 5),
        ("FG6692_T1", 23),
        ("FG6692_FLAIR", 14),
        ("FG6692_FLAIR", 17),
        ("p04_1_T1W", 1),
        ("p04_1_T1W", 20),
    ],
)
def test_a_real_head_turned_against_its_header_is_told_with_the_way_it_lies(shared_data, name, turn):
    """Some of the 24 ways; ``python -m benchmarks.brain_turns`` prepares all of them."""
    image, kind = read_head(shared_data, name), kind_of(sequence_of(name))
    mask = read_mask(shared_data, name, image)
    matrix, about = turns()[turn], np.zeros(3)
    image, mask = (axial(turned(volume, matrix, about)) for volume in (image, mask))
    with one_thread():
        stripped = aligned(image, mask, kind, stripped_before=False)
        figures = quality(image, stripped, kind)
        told = turned_against_header(image, stripped, kind, figures)
    assert told.startswith(meaning(matrix))
    assert figures["upright"] < 1
