"""The strip without a network on real heads, against masks from elsewhere: what it keeps, and what it loses."""

from __future__ import annotations

import pytest

from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.preprocess import kind_of
from prognosis_dask.brain.strip import strip
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.imaging.geometry import one_thread
from tests.heads import lost_ml, overlap, read_head, read_mask

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "least", "most_lost"),
    [
        ("FG6692_T1", 0.96, 10),
        ("FG6692_T2", 0.94, 10),
        ("p04_1_T1W", 0.95, 20),
        ("FG6692_T1c", 0.95, 10),
        ("FG6692_FLAIR", 0.95, 10),
    ],
)
def test_the_template_keeps_the_brain_of_a_real_head(shared_data, name, least, most_lost):
    image = axial(read_head(shared_data, name))
    with one_thread():
        found = strip(image, kind_of(sequence_of(name))).brain
    truth = read_mask(shared_data, name, image)
    assert overlap(found, truth) >= least
    assert lost_ml(found, truth) <= most_lost
