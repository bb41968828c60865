"""A mask on one slice has features where the parameters are those of planes: pyradiomics' own values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.errors import Code
from prognosis_dask.features.registry import RADIOMICS, ROI
from prognosis_dask.features.stage import StageContext
from prognosis_dask.imaging.roi import grid_of
from prognosis_dask.radiomics.parameter_file import column_names
from prognosis_dask.radiomics.params import ModalityParams, RadiomicsParams
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.storage.rois import RoiStore
from tests.test_radiomics import assert_identical, execute, whole

TEXTURE: dict[str, list[str]] = {name: [] for name in ("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")}


def planes(image_types: dict[str, dict[str, object]], *classes: str, **settings: object) -> RadiomicsParams:
    content = {
        "imageType": image_types,
        "featureClass": {name: [] for name in classes} | TEXTURE,
        "setting": {"force2D": True, **settings},
    }
    return RadiomicsParams(json.dumps(content))


PARAMS = {
    "shape2D": planes({"Original": {}}, "shape2D"),
    "solid": planes({"Original": {}}, "shape"),
    "linear": planes(
        {"Original": {}}, "shape2D", resampledPixelSpacing=[0.5, 0.5, 0], interpolator="sitkLinear", binWidth=10
    ),
    "spline": planes({"Original": {}}, "shape2D", resampledPixelSpacing=[0.7, 0.7, 0], padDistance=4),
    "all-axes": planes({"Original": {}}, "shape2D", resampledPixelSpacing=[1, 1, 1], interpolator="sitkLinear"),
    "wavelet": planes({"Wavelet": {}, "LoG": {"sigma": [2.0]}, "Gradient": {}}, "shape2D", binCount=16),
}


def run_stages(folder: Path, case: Case, params: RadiomicsParams) -> list[TaskResult]:
    context = StageContext(str(folder), Job("planes"), ModalityParams.alike(params))
    RoiStore.create(folder / "rois.zarr", [case.case_id])
    found = ROI.load().run((case,), ("",), context)
    return found if found[0].problem else [*found, *RADIOMICS.load().run((case,), ("",), context)]


@pytest.fixture
def case(shared_data: Path) -> Case:
    folder = shared_data / "nifti_edge"
    image, mask = (next(folder.glob(name)) for name in ("img.nii.gz", "seg_single_slice.nii.gz"))
    return Case("P1_MR_1", "P1", "MR", "prostate", str(image), str(mask))


@pytest.mark.parametrize("name", PARAMS)
def test_a_mask_on_one_slice_has_the_features_that_pyradiomics_gives_it(name: str, case: Case, tmp_path: Path) -> None:
    roi, radiomics = run_stages(tmp_path, case, PARAMS[name])
    assert roi.problem is radiomics.problem is None
    assert roi.values["n_slices"] == 1
    image = sitk.ReadImage(case.image)
    mask = sitk.Cast(sitk.ReadImage(case.mask) > 0, sitk.sitkUInt8)
    mask.CopyInformation(image)
    values = dict(zip(column_names(PARAMS[name]), radiomics.values["values"], strict=True))  # type: ignore[call-overload]
    assert_identical(values, execute(whole(image, mask), PARAMS[name]))
    (warning,) = roi.warnings
    assert warning.code == Code.MASK_ONE_SLICE
    assert ("as thick as the slice" in warning.reason) == (name == "solid")


def test_a_mask_on_one_slice_is_a_problem_where_features_are_those_of_space(case: Case, tmp_path: Path) -> None:
    params = RadiomicsParams(json.dumps({"featureClass": TEXTURE, "setting": {"binWidth": 25}}))
    (roi,) = run_stages(tmp_path, case, params)
    assert roi.problem is not None
    assert roi.problem.code == Code.MASK_ONE_SLICE
    assert "unless features are computed in planes (setting.force2D" in roi.problem.reason


def test_planes_of_another_axis_do_not_make_a_mask_on_one_slice_whole(case: Case) -> None:
    assert not planes({"Original": {}}, "shape2D", force2Ddimension=2).planar
    assert PARAMS["shape2D"].planar
    assert grid_of(sitk.ReadImage(case.image)).size[2] > 1
