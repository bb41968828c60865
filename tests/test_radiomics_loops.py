"""What radiomics computes anew has the bits of pyradiomics' C code, of ITK and of ``execute()``, compiled or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from radiomics import cShape

from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.radiomics import extractor as mesh
from prognosis_dask.radiomics import filters, kernels
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.params import RadiomicsParams
from tests import radiomics_cases

COMPILED = kernels.kernels() is not None


@pytest.mark.skipif(not COMPILED, reason="the package was built without a C compiler")
def test_the_compiled_laplacian_has_this_itks_bits() -> None:
    rng = np.random.default_rng(0)
    for kind in ("int16", "uint8", "int32", "float32", "float64"):
        voxels = rng.normal(100, 40, rng.integers(4, 40, 3)).clip(0, 255).astype(kind)
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing([float(step) for step in rng.choice([0.3, 0.977, 3.3], 3)])
        image.SetDirection([0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, -1])
        box = tuple(slice(int(rng.integers(0, side)), side) for side in voxels.shape)
        for sigma in (0.5, 1.0, 3.0, 7.3):
            filtered = filters.laplacian_of_gaussian(image, sigma, box)
            np.testing.assert_array_equal(filtered, filters._by_itk(image, sigma)[box])


def test_surface_volume_and_diameters_have_pyradiomics_bits() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        spacing = rng.choice([0.7, 0.977, 1, 3.3, 1e-3, 77.1], 3)
        mask = rng.random(rng.integers(1, 14, 3)) < rng.choice([0.02, 0.3, 0.7, 1])
        assert_same_mesh(mask, spacing)


def test_a_ball_with_many_largest_diameters_has_pyradiomics_bits() -> None:
    z, y, x = np.ogrid[-20:21, -20:21, -20:21]
    assert_same_mesh(z * z + y * y + x * x < 380, np.array([1, 0.977, 0.977]))


def assert_same_mesh(mask: np.ndarray, spacing: np.ndarray) -> None:
    surface, volume, diameters = cShape.calculate_coefficients(np.pad(mask, 1), spacing)
    assert mesh.mesh(mask, spacing) == (surface, volume, tuple(diameters))


@pytest.fixture(params=["compiled", "plain"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "compiled" and not COMPILED:
        pytest.skip("the package was built without a C compiler")
    if request.param == "plain":
        for module in ("filters", "extractor", "texture"):
            for found in ("kernels", "chunk"):
                monkeypatch.setattr(f"prognosis_dask.radiomics.{module}.{found}", lambda: None, raising=False)
    return str(request.param)


def test_made_images_have_the_features_of_execute(loops: str) -> None:
    assert [found for number in range(40) if (found := radiomics_cases.difference(number))] == []


def test_the_real_part_of_a_complex_correlation_coefficient_counts_and_nothing_is_warned_of() -> None:
    """Directions are weighted in that case, so pyradiomics' own class computes it."""
    assert radiomics_cases.difference(901) == ""


@pytest.mark.skipif(not COMPILED, reason="the package was built without a C compiler")
def test_this_numpys_order_of_additions_is_known() -> None:
    """Otherwise pyradiomics' own classes compute, in many times the time."""
    assert kernels.chunk() is not None


@pytest.mark.skipif(not COMPILED, reason="the package was built without a C compiler")
@pytest.mark.parametrize("own", [1768, 4968, 1 << 62])
def test_another_order_of_additions_is_not_taken_for_this_numpys(own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two give a sum of 20,000 terms the bits of one that begins anew after 8,192."""
    known, call = kernels.chunk(), kernels.call
    monkeypatch.setattr(kernels, "call", lambda name, terms, count, _, total: call(name, terms, count, own, total))
    assert kernels.chunk.__wrapped__() == (kernels._CHUNKS[0] if own == known else None)


@pytest.mark.parametrize(
    ("side", "setting", "classes"),
    [
        (26, {"binCount": 30}, radiomics_cases.CLASSES),
        (18, {"binCount": 300, "distances": [1, 2]}, ("glszm", "gldm", "ngtdm")),
    ],
)
def test_a_region_with_longer_sums_than_numpy_adds_at_once_has_the_features_of_execute(
    side: int, setting: dict[str, Any], classes: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(side)
    image = sitk.GetImageFromArray(rng.normal(0, 100, (side, side, side)).astype(np.float32))
    mask = sitk.GetImageFromArray((rng.random((side, side, side)) < 0.9).astype(np.uint8))
    content = {"imageType": {"Original": {}}, "featureClass": {name: [] for name in classes}}
    params = RadiomicsParams(json.dumps(content | {"setting": setting}))
    roi = Roi(image, mask, grid_of(image), (0, 0, 0))
    assert extract(roi, params) == radiomics_cases.execute(roi, params)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 1000, 200))
def test_a_thousand_made_images_have_the_features_of_execute(start: int) -> None:
    """Ten thousand: ``python -m benchmarks.radiomics --made 10000``."""
    assert [found for number in range(start, start + 200) if (found := radiomics_cases.difference(number))] == []


@pytest.mark.skipif(not COMPILED, reason="the package was built without a C compiler")
def test_compiled_loops_of_another_version_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "VERSION", kernels.VERSION + 1)
    assert kernels.kernels.__wrapped__() is None


def test_without_compiled_loops_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    found: Any = kernels.kernels.__wrapped__()
    assert found is None


@pytest.mark.parametrize(("kind", "low", "high"), [("int8", -100, 100), ("int16", -3024, 30976)])
def test_values_farther_apart_than_their_type_reaches_have_the_features_of_execute(
    kind: str, low: int, high: int
) -> None:
    """Such as metal beside air, in HU."""
    voxels = np.random.default_rng(2).integers(low, high + 1, (34, 33, 32)).astype(kind)
    voxels[0, 0, :2] = low, high
    image = sitk.GetImageFromArray(voxels)
    content = {"imageType": {"Original": {}}, "featureClass": {"firstorder": [], "ngtdm": []}}
    params = RadiomicsParams(json.dumps(content | {"setting": {"binCount": 32}}))
    roi = Roi(image, sitk.GetImageFromArray(np.ones(voxels.shape, np.uint8)), grid_of(image), (0, 0, 0))
    assert extract(roi, params) == radiomics_cases.execute(roi, params)
