"""A tumour's size and place as features of a table."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Final

from prognosis_dask.brain.size import TumourSize

#: Name and unit of each.
SIZE_FEATURES: Final = MappingProxyType(
    {
        "size_volume": "mL",
        "size_axial_diameter": "mm",
        "size_perpendicular": "mm",
        "size_product": "mm2",
        "size_diameter_3d": "mm",
        "place_template_side": "mm",
        "place_template_y": "mm",
        "place_template_z": "mm",
    }
)


def size_values(size: TumourSize) -> list[float]:
    """The values of :data:`SIZE_FEATURES`, in their order.

    ``place_template_side`` is the distance from the middle: left and right say the same of a grade. The places are NaN
    where the way to the template is not known.
    """
    x, y, z = size.template_mm or (math.nan,) * 3
    return [
        size.volume_ml,
        size.axial_diameter_mm,
        size.perpendicular_mm,
        size.product_mm2,
        size.diameter_3d_mm,
        abs(x),
        y,
        z,
    ]
