"""Local binary patterns, which pyradiomics computes with scikit-image, trimesh and a SciPy of before 1.15 only."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.filters import planar_patterns
from prognosis_dask.radiomics.parameter_file import column_names, read_params
from prognosis_dask.radiomics.params import RadiomicsParams

CONTENT = {
    "imageType": {"LBP2D": {"lbp2DSamples": 9, "lbp2DRadius": 1.5}, "LBP3D": {"lbp3DLevels": 3}},
    "featureClass": {"firstorder": ["Energy", "Mean", "Kurtosis"], "glcm": ["Contrast"]},
    "setting": {"binWidth": 0.5},
}
#: What ``execute()`` of pyradiomics 3.0.1 says of breast1 with scikit-image 0.26, trimesh 5.2 and SciPy 1.14.
EXPECTED = {
    "lbp-2D_firstorder_Energy": 1654.0,
    "lbp-2D_firstorder_Mean": 3.1188811188811187,
    "lbp-2D_firstorder_Kurtosis": 2.5765955136280643,
    "lbp-2D_glcm_Contrast": 12.971432555881716,
    "lbp-3D-m1_firstorder_Energy": 11384.232886537837,
    "lbp-3D-m1_firstorder_Mean": 8.644637325752077,
    "lbp-3D-m1_firstorder_Kurtosis": 3.7503260155140308,
    "lbp-3D-m1_glcm_Contrast": 39.00094153118154,
    "lbp-3D-m2_firstorder_Energy": 19939.911839865817,
    "lbp-3D-m2_firstorder_Mean": 11.309950479312011,
    "lbp-3D-m2_firstorder_Kurtosis": 2.189214260340867,
    "lbp-3D-m2_glcm_Contrast": 109.32220621557411,
    "lbp-3D-m3_firstorder_Energy": 15361.786746035174,
    "lbp-3D-m3_firstorder_Mean": 9.779964370292218,
    "lbp-3D-m3_firstorder_Kurtosis": 1.7925759077457843,
    "lbp-3D-m3_glcm_Contrast": 116.81661631673754,
    "lbp-3D-k_firstorder_Energy": 148.248458480961,
    "lbp-3D-k_firstorder_Mean": -0.9389514021617279,
    "lbp-3D-k_firstorder_Kurtosis": 4.421761686806461,
    "lbp-3D-k_glcm_Contrast": 1.640285927263344,
}


def test_patterns_are_those_that_pyradiomics_gives_where_it_can(shared_data: Path) -> None:
    image = sitk.ReadImage(str(shared_data / "pyradiomics" / "breast1_image.nrrd"))
    label = sitk.ReadImage(str(shared_data / "pyradiomics" / "breast1_label.nrrd"))
    roi = Roi(image, sitk.Cast(label == 1, sitk.sitkUInt8), grid_of(image), (0, 0, 0))
    values = extract(roi, RadiomicsParams(json.dumps(CONTENT)))
    assert list(values) == list(EXPECTED)
    planar = {name: value for name, value in EXPECTED.items() if name.startswith("lbp-2D")}
    assert {name: values[name] for name in planar} == planar
    assert values == pytest.approx(EXPECTED, rel=1e-12, abs=0)


def test_a_parameter_file_may_ask_for_patterns(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("imageType: {LBP2D: {}, LBP3D: {}}\nfeatureClass: {firstorder: [Mean]}\n", encoding="utf-8")
    images = [name.split("_")[0] for name in column_names(read_params(str(path)))]
    assert images == ["lbp-2D", "lbp-3D-m1", "lbp-3D-m2", "lbp-3D-k"]


@given(
    seed=st.integers(0, 2**32 - 1),
    plane_axis=st.integers(0, 2),
    radius=st.sampled_from([1, 1.5, 2.3, 4]),
    samples=st.sampled_from([8, 9]),
    method=st.sampled_from(["uniform", "ror"]),
)
@settings(max_examples=30)
def test_planar_patterns_come_from_any_crop_that_holds_their_circles(
    seed: int, plane_axis: int, radius: float, samples: int, method: str
) -> None:
    rng = np.random.default_rng(seed)
    size = rng.integers(3, 40, 3)
    voxels = rng.choice([-0.4, 0.31, 0.3], size, p=[0.1, 0.1, 0.8])  # with many ties
    start = rng.integers(0, size - 1)
    stop = np.minimum(start + 2 + rng.integers(0, 4, 3), size)
    box = tuple(map(slice, start.tolist(), stop.tolist()))
    mask = np.zeros(size, np.uint8)
    mask[box] = 1
    own = {"lbp2DSamples": samples, "lbp2DRadius": radius, "lbp2DMethod": method, "force2Ddimension": plane_axis}
    found = planar_patterns(voxels, box, own)
    assert found.tolist() == [
        [[pattern(voxels, (z, y, x), own) for x in range(*box[2].indices(99))] for y in range(*box[1].indices(99))]
        for z in range(*box[0].indices(99))
    ]

    image, label = sitk.GetImageFromArray(voxels), sitk.GetImageFromArray(mask)
    full = Roi(image, label, grid_of(image), (0, 0, 0))
    reach = math.ceil(radius)
    first, last = np.maximum(start - reach, 0)[::-1].tolist(), np.minimum(stop + reach, size)[::-1]
    part = [int(b - a) for a, b in zip(first, last, strict=True)], first
    crop = Roi(sitk.RegionOfInterest(image, *part), sitk.RegionOfInterest(label, *part), full.full, tuple(first))
    content = {"imageType": {"LBP2D": own, "Gradient": {}}, "featureClass": {"firstorder": ["Energy", "Mean"]}}
    content["setting"] = {"minimumROIDimensions": 1, "binWidth": 0.5, "force2Ddimension": plane_axis}
    params = RadiomicsParams(json.dumps(content))
    assert extract(crop, params) == extract(full, params)


def pattern(voxels: np.ndarray, place: tuple[int, int, int], own: dict[str, Any]) -> int:
    """A pixel's pattern, as scikit-image's documentation and source say, one neighbour after the other."""
    planes = voxels.swapaxes(0, own["force2Ddimension"])
    at = list(place)
    at[0], at[own["force2Ddimension"]] = at[own["force2Ddimension"]], at[0]
    plane, row, column, samples = planes[at[0]], at[1], at[2], own["lbp2DSamples"]

    def pixel(y: int, x: int) -> float:
        return float(plane[y, x]) if 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1] else 0.0

    bits = []
    for number in range(samples):
        angle = 2 * np.pi * number / samples
        y = row + round(-own["lbp2DRadius"] * math.sin(angle), 5)
        x = column + round(own["lbp2DRadius"] * math.cos(angle), 5)
        above, left, below, right = math.floor(y), math.floor(x), math.ceil(y), math.ceil(x)
        top = (1 - (x - left)) * pixel(above, left) + (x - left) * pixel(above, right)
        bottom = (1 - (x - left)) * pixel(below, left) + (x - left) * pixel(below, right)
        bits.append((1 - (y - above)) * top + (y - above) * bottom >= plane[row, column])
    if own["lbp2DMethod"] == "ror":
        turned = [bits[turn:] + bits[:turn] for turn in range(samples)]
        return min(sum(2**power * bit for power, bit in enumerate(one)) for one in turned)
    return sum(bits) if sum(one != other for one, other in pairwise(bits)) <= 2 else samples + 1
