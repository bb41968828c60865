"""Local binary patterns, which pyradiomics computes with scikit-image, trimesh and a SciPy of before 1.15 only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import SimpleITK as sitk

from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.radiomics import RadiomicsParams, column_names, extract, read_params

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
