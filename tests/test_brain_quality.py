"""Quality figures on real heads: right masks pass, masks spoilt by hand do not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.preprocess import (
    LEAST_AGREEMENT,
    MOST_OFF_CENTRE_MM,
    SKULL_MM,
    SKULL_T2_MM,
    agreement,
    skull_edges,
)
from tests.heads import WITH_MASK, grown, read_head, read_mask, shifted

SPOILT_MM = 5.0


@cache
def head_and_mask(data: Path, name: str) -> tuple[sitk.Image, sitk.Image]:
    image = axial(read_head(data, name))
    return image, read_mask(data, name, image)


def figures(image: sitk.Image, mask: sitk.Image) -> tuple[float, float]:
    """Mean distance of the skull, and half the largest difference of opposite sides."""
    sides = skull_edges(image, mask)
    apart = max(abs(sides["left"] - sides["right"]), abs(sides["front"] - sides["back"])) / 2
    return float(np.mean(list(sides.values()))), apart


@pytest.mark.parametrize("name", WITH_MASK)
def test_a_right_mask_ends_where_the_skull_begins_and_a_wrong_one_does_not(shared_data, name):
    image, mask = head_and_mask(shared_data, name)
    least, most = SKULL_T2_MM if name.endswith("_T2") else SKULL_MM
    skull, apart = figures(image, mask)
    assert least < skull < most
    assert apart < MOST_OFF_CENTRE_MM
    assert figures(image, grown(mask, -SPOILT_MM))[0] > most
    assert figures(image, grown(mask, SPOILT_MM))[0] < least
    assert agreement(mask, grown(mask, -SPOILT_MM)) < LEAST_AGREEMENT
    assert figures(image, shifted(mask, SPOILT_MM, 0.0))[1] > MOST_OFF_CENTRE_MM
    assert figures(image, shifted(mask, 0.0, -SPOILT_MM))[1] > MOST_OFF_CENTRE_MM
