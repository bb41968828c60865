"""pyradiomics' features from a crop are pyradiomics' features from the full image, to the last bit."""

from __future__ import annotations

import ast
import csv
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.config.job import ImageSection, digest
from prognosis_dask.errors import CaseError, Code, JobError
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi, crop_roi, grid_of
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.parameter_file import column_names, read_params, unit
from prognosis_dask.radiomics.params import RadiomicsParams
from tests.dicom_helpers import case_of

STUDY_FILE = Path(__file__).parents[1] / "jobs" / "params" / "lung1.yaml"
STUDY = read_params(str(STUDY_FILE)).content
CLASSES: dict[str, list[str]] = {n: [] for n in ("shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")}
POINTWISE: dict[str, Any] = {"Square": {}, "SquareRoot": {}, "Logarithm": {}, "Exponential": {}}


def params_of(image_types: dict[str, Any] | None = None, **settings: Any) -> RadiomicsParams:
    content = {"imageType": image_types or {"Original": {}}, "featureClass": CLASSES, "setting": settings}
    return RadiomicsParams(json.dumps(content))


def cut(roi: Roi, before: list[int], after: list[int]) -> Roi:
    """A crop with so many voxels around the mask, (x, y, z), fewer at the image's border."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(roi.mask)
    start, size = np.split(np.array(statistics.GetBoundingBox(1)), 2)
    first = np.maximum(start - before, 0)
    region = (np.minimum(start + size + after, roi.full.size) - first).tolist(), first.tolist()
    image, mask = (sitk.RegionOfInterest(one, *region) for one in (roi.image, roi.mask))
    x, y, z = region[1]
    return Roi(image, mask, roi.full, (x, y, z))


def whole(image: sitk.Image, mask: sitk.Image) -> Roi:
    return Roi(image, mask, grid_of(image), (0, 0, 0))


def execute(roi: Roi, params: RadiomicsParams) -> dict[str, float]:
    """What pyradiomics itself says of the full image and mask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = RadiomicsFeatureExtractor(params.content)
        extractor.addProvenance(False)
        return {name: float(value) for name, value in extractor.execute(roi.image, roi.mask, label=1).items()}


def assert_identical(values: dict[str, float], expected: dict[str, float]) -> None:
    assert list(values) == list(expected)
    np.testing.assert_array_equal(list(values.values()), list(expected.values()))


class FullLoad:
    """Loads the full image, and remembers whether it had to."""

    def __init__(self, roi: Roi) -> None:
        self.roi = roi
        self.called = False

    def __call__(self) -> Roi:
        self.called = True
        return self.roi


@pytest.fixture(scope="module")
def brain(shared_data: Path) -> Roi:
    return pyradiomics_case(shared_data, "brain1")


@pytest.fixture(scope="module")
def breast(shared_data: Path) -> Roi:
    return pyradiomics_case(shared_data, "breast1")


@pytest.fixture(scope="module")
def lung(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Roi:
    folder = shared_data / "lung1_002"
    case = case_of(folder / "ct", next((folder / "rtstruct").iterdir()), (2,), tmp_path_factory.mktemp("lung"))
    return load_roi(case, ImageSection(), full=True)


def pyradiomics_case(shared_data: Path, name: str) -> Roi:
    image = sitk.ReadImage(str(shared_data / "pyradiomics" / f"{name}_image.nrrd"))
    label = sitk.ReadImage(str(shared_data / "pyradiomics" / f"{name}_label.nrrd"))
    return whole(image, sitk.Cast(label == 1, sitk.sitkUInt8))


#: Name -> (parameters, whether the crop is enough for brain1's whole numbers).
FROM_CROP = {
    "study": RadiomicsParams(json.dumps(STUDY)),
    "original": params_of(),
    "wavelet": params_of({"Wavelet": {}}, binWidth=10),
    "wavelet-levels": params_of({"Wavelet": {"wavelet": "haar", "level": 2, "start_level": 1}}, binCount=16),
    "gradient": params_of({"Original": {}, "Gradient": {"gradientUseSpacing": False}}),
    "linear": params_of({"LoG": {"sigma": [2.0]}}, resampledPixelSpacing=[1.5, 1.5, 1.5], interpolator="sitkLinear"),
    "sinc": params_of(POINTWISE, resampledPixelSpacing=[2, 2, 0], interpolator="sitkHammingWindowedSinc"),
    "gaussian": params_of(resampledPixelSpacing=[1.3, 1.1, 4.0], interpolator="sitkGaussian"),
    "nearest": params_of(resampledPixelSpacing=[1, 1, 1], interpolator="sitkNearestNeighbor"),
    "own-spacing": params_of({"LoG": {"sigma": [2.0]}}, resampledPixelSpacing=[0, 0, 0], padDistance=7),
    "pre-crop": params_of({"LoG": {"sigma": [2.0]}, **POINTWISE}, preCrop=True),
    "force-2d": params_of({"Wavelet": {}}, force2D=True, resampledPixelSpacing=[1, 1, 0], interpolator="sitkLinear"),
    "bin-count": params_of(binCount=16, resegmentRange=[0.2], resegmentMode="relative", resegmentShape=True),
}
FROM_FULL = {
    "log": params_of({"LoG": {"sigma": [1.0, 3.0]}}),
    "pointwise": params_of(POINTWISE),
    "normalize": params_of(normalize=True, normalizeScale=100, removeOutliers=3, binWidth=5),
    "normalize-resample": params_of(normalize=True, normalizeScale=100, binWidth=5, resampledPixelSpacing=[2, 2, 2]),
}


@pytest.mark.parametrize("name", FROM_CROP)
def test_a_crop_gives_the_full_images_features(name: str, brain: Roi) -> None:
    values = extract(crop_roi(brain, margin_mm=20.0), FROM_CROP[name])
    assert_identical(values, execute(brain, FROM_CROP[name]))


@pytest.mark.parametrize("name", FROM_FULL)
def test_what_depends_on_the_whole_image_is_computed_from_it(name: str, brain: Roi) -> None:
    load = FullLoad(brain)
    values = extract(crop_roi(brain, margin_mm=20.0), FROM_FULL[name], load)
    assert load.called
    assert_identical(values, execute(brain, FROM_FULL[name]))


@pytest.mark.parametrize("name", [*FROM_CROP, *FROM_FULL])
def test_a_lesion_near_the_border_gives_the_full_images_features(name: str, breast: Roi) -> None:
    params = {**FROM_CROP, **FROM_FULL}[name]
    assert_identical(extract(crop_roi(breast, margin_mm=20.0), params, lambda: breast), execute(breast, params))


def test_the_studys_features_of_a_full_ct_come_from_its_crop(lung: Roi) -> None:
    params = read_params(str(STUDY_FILE))
    assert_identical(extract(crop_roi(lung, margin_mm=20.0), params), execute(lung, params))


@pytest.mark.slow
@pytest.mark.parametrize(
    "image_types", [{"LoG": {"sigma": [1.0, 3.0]}}, {"Wavelet": {}}], ids=lambda types: next(iter(types))
)
@pytest.mark.parametrize("resampled", [True, False])
def test_filters_of_a_full_ct_are_identical(image_types: dict[str, Any], resampled: bool, lung: Roi) -> None:
    content = {**STUDY, "imageType": image_types}
    if not resampled:
        content["setting"] = {"binWidth": 25}
    params = RadiomicsParams(json.dumps(content))
    assert_identical(extract(crop_roi(lung, margin_mm=20.0), params, lambda: lung), execute(lung, params))


def test_the_published_features_of_lung1_002_come_out(lung: Roi, shared_data: Path) -> None:
    """107 values, computed by other people with pyradiomics 2.2, its defaults and binWidth 25."""
    with (shared_data / "lung1_002" / "reference_radiomics.csv").open() as stream:
        row = next(csv.DictReader(stream))
    published = {name: float(value) for name, value in row.items() if name.startswith("original_")}
    values = extract(crop_roi(lung, margin_mm=20.0), read_params(""))
    assert len(published) == 107
    assert values == pytest.approx(published, rel=1e-9, abs=0)


@pytest.mark.parametrize("feature_class", ["firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "shape"])
@pytest.mark.parametrize("case", ["brain1", "breast1"])
def test_pyradiomics_own_baselines_come_out(case: str, feature_class: str, shared_data: Path) -> None:
    roi = pyradiomics_case(shared_data, case)
    with (shared_data / "pyradiomics" / f"baseline_{feature_class}.csv").open() as stream:
        rows = {row.pop("featureName"): row for row in csv.DictReader(stream)}
    configured = rows["diagnostics_Configuration_Settings"]
    for name in (name for name in configured if name.split("_")[0] == case):
        content = {"featureClass": {feature_class: []}, "setting": ast.literal_eval(configured[name])}
        values = extract(crop_roi(roi, 20.0), RadiomicsParams(json.dumps(content)), lambda: roi)
        baseline = {key: float(row[name]) for key, row in rows.items() if key.startswith("original") and row[name]}
        assert baseline
        # the shapes' baselines were made with an older table of marching cubes
        rel = 1e-3 if feature_class == "shape" else 1e-6
        assert {key: values[key] for key in baseline} == pytest.approx(baseline, rel=rel), name


def test_the_ibsi_phantoms_reference_values_come_out(shared_data: Path) -> None:
    """The values that many teams agreed on, to the three digits in which they are published."""
    folder = shared_data / "ibsi"
    image = sitk.ReadImage(str(folder / "digital_phantom/image/phantom.nii.gz"))
    mask = sitk.Cast(sitk.ReadImage(str(folder / "digital_phantom/mask/mask.nii.gz")), sitk.sitkUInt8)
    values = extract(whole(image, mask), params_of(binWidth=1))
    values["original_firstorder_Kurtosis"] -= 3  # IBSI's is the excess
    with (folder / "reference/ibsi_1_dig_phantom.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream, delimiter=";") if row["reference value"]]
    reference = {row["tag"]: (float(row["reference value"]), float(row["tolerance"])) for row in rows}
    compared = 0
    with (folder / "reference/Pyradiomics2IBSIFeatures.csv").open() as stream:
        for row in csv.DictReader(stream):
            name = row["PyradiomicsFeature"]
            stem = row["IBSIName"].removeprefix("F").replace(".", "_")
            tag = next((stem + end for end in ("", "_3D_avg", "_3D") if stem + end in reference), None)
            if tag is None or name in NOT_IBSI or "_gldm_" in name:
                continue
            expected, tolerance = reference[tag]
            assert values[name] == pytest.approx(expected, rel=0.005, abs=tolerance), name
            compared += 1
    assert compared == 83


#: Another definition (pyradiomics' axes divide by the number of voxels), and a name that the table maps to another
#: variance. All of its dependence matrices are mapped to IBSI's distance zones, which are something else.
NOT_IBSI = {"original_shape_MinorAxisLength", "original_glcm_SumSquares"}


@st.composite
def small_cases(draw: st.DrawFn) -> Roi:
    """A noisy image with patches of constant value, of any spacing and direction, and a mask anywhere in it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.permutations([draw(st.integers(50, 90)), draw(st.integers(13, 60)), draw(st.integers(13, 20))]))
    voxels = np.clip(rng.normal(-900 if draw(st.booleans()) else 0, 200, size[::-1]), -1024, 3071)
    image = sitk.GetImageFromArray(voxels.astype(draw(st.sampled_from(["int16", "uint16", "float32", "int32"]))))
    box = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in size[::-1]]
    mask = np.zeros(size[::-1], np.uint8)
    mask[tuple(slice(low, min(high, low + 8)) for low, high in box)] = 1
    mask *= rng.random(mask.shape) < draw(st.sampled_from([0.7, 1.0]))
    if not mask.any():
        mask[tuple(low for low, _ in box)] = 1
    label = sitk.GetImageFromArray(mask)
    angle = draw(st.sampled_from([0.0, 0.1, 2.0]))
    for one in (image, label):
        one.SetSpacing([draw(st.shared(st.sampled_from([0.7, 0.977, 1.0, 2.0, 3.0]), key=axis)) for axis in "xyz"])
        one.SetOrigin((-250.112, 13.7, -133.4))
        one.SetDirection([math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0, 0, 0, 1])
    return whole(image, label)


@given(
    roi=small_cases(),
    before=st.lists(st.integers(0, 35), min_size=3, max_size=3),
    after=st.lists(st.integers(0, 35), min_size=3, max_size=3),
    new_mm=st.sampled_from([1.0, 2.0, 2.5]),
    name=st.sampled_from(["spline", "spline-log", "linear", "nearest", "wavelet", "gradient", "original"]),
)
def test_any_crop_of_any_image_gives_the_full_images_features(
    roi: Roi, before: list[int], after: list[int], new_mm: float, name: str
) -> None:
    spacing = {"resampledPixelSpacing": [new_mm] * 3, "padDistance": 3}
    classes = {"shape": ["VoxelVolume"], "firstorder": ["Mean", "Energy", "Median"]}
    image_types, setting = {
        "spline": ({"Original": {}}, spacing),
        "spline-log": ({"Original": {}, "LoG": {"sigma": [2.0]}}, spacing),
        "linear": ({"Original": {}, "Square": {}}, spacing | {"interpolator": "sitkLinear"}),
        "nearest": ({"Original": {}}, spacing | {"interpolator": "sitkNearestNeighbor"}),
        "wavelet": ({"Wavelet": {"wavelet": "haar"}}, {}),
        "gradient": ({"Gradient": {}}, {}),
        "original": ({"Original": {}}, {"resegmentRange": [-1, 1], "resegmentMode": "sigma"}),
    }[name]
    params = RadiomicsParams(json.dumps({"imageType": image_types, "featureClass": classes, "setting": setting}))
    crop = cut(roi, before, after)
    expected = outcome(lambda: execute(roi, params))
    values = outcome(lambda: extract(crop, params, lambda: roi))
    if isinstance(expected, str):
        assert values == f"pyradiomics: {expected}"
    else:
        assert isinstance(values, dict), values
        assert_identical({name: values[name] for name in expected}, expected)


def outcome(action: Callable[[], dict[str, float]]) -> dict[str, float] | str:
    """The features, or why there are none."""
    try:
        return action()
    except ValueError as error:
        return " ".join(str(error).split())
    except CaseError as error:
        return error.problem.reason


@pytest.mark.parametrize("spacing", [(0.7, 0.977, 1.0), (1.0, 3.0, 0.5)])
@pytest.mark.parametrize("image_types", [{"Original": {}}, {"Original": {}, "LoG": {"sigma": [1.0]}}])
def test_a_lesion_far_from_every_border_is_settled_by_its_crop(
    spacing: tuple[float, float, float], image_types: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.normal(0, 300, (90, 90, 90)).astype(np.int16))
    mask = np.zeros((90, 90, 90), np.uint8)
    mask[40:50, 38:47, 42:49] = rng.random((10, 9, 7)) < 0.9
    label = sitk.GetImageFromArray(mask)
    for one in (image, label):
        one.SetSpacing(spacing)
    roi = whole(image, label)
    setting = {"resampledPixelSpacing": [1.3, 1.3, 1.3], "padDistance": 5, "binWidth": 25}
    params = RadiomicsParams(json.dumps({"imageType": image_types, "setting": setting}))
    load = FullLoad(roi)
    values = extract(cut(roi, [36, 36, 36], [36, 36, 36]), params, load)
    assert not load.called
    assert_identical(values, execute(roi, params))


def constant_air(value: int) -> Roi:
    """Air of one value around and within a thin-walled lesion, as scanners write it."""
    voxels = np.full((60, 60, 60), value, np.int16)
    voxels[28:32, 28:32, 28:32] = 40
    mask = np.zeros_like(voxels, np.uint8)
    mask[24:36, 24:36, 24:36] = 1
    image, label = sitk.GetImageFromArray(voxels), sitk.GetImageFromArray(mask)
    for one in (image, label):
        one.SetSpacing((0.977, 0.977, 3.0))
    return whole(image, label)


def test_values_too_close_to_call_are_taken_from_the_full_image() -> None:
    """The spline of constant air is -1024 but for rounding, and is cut to -1024 or -1023."""
    roi, params = constant_air(-1024), params_of(resampledPixelSpacing=[1, 1, 1])
    load = FullLoad(roi)
    values = extract(crop_roi(roi, 0.0), params, load)
    assert load.called
    assert_identical(values, execute(roi, params))


def test_without_the_full_image_an_unsettled_case_says_so() -> None:
    crop = crop_roi(constant_air(-1024), 0.0)
    with pytest.raises(CaseError, match="extract from the full image") as caught:
        extract(crop, params_of(resampledPixelSpacing=[1, 1, 1]))
    assert caught.value.problem.code == Code.RADIOMICS_FAILED


def test_cropping_first_would_move_the_grid(brain: Roi) -> None:
    """Why a crop cannot simply be handed to pyradiomics."""
    crop = crop_roi(brain, margin_mm=20.0)
    moved = execute(whole(crop.image, crop.mask), FROM_CROP["study"])
    values = extract(crop, FROM_CROP["study"])
    assert max(abs(moved[name] / value - 1) for name, value in values.items() if value) > 0.01


@pytest.mark.parametrize("name", [*FROM_CROP, *FROM_FULL])
def test_column_names_are_those_of_execute(name: str, breast: Roi) -> None:
    params = {**FROM_CROP, **FROM_FULL}[name]
    assert column_names(params) == tuple(execute(breast, params))


def test_the_defaults_are_pyradiomics_with_bin_width_25(breast: Roi) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = RadiomicsFeatureExtractor(binWidth=25, additionalInfo=False).execute(breast.image, breast.mask)
    assert_identical(extract(breast, read_params("")), {name: float(value) for name, value in expected.items()})
    assert len(expected) == 107


def test_shape2d_has_columns_and_wants_one_plane(breast: Roi) -> None:
    content = {"featureClass": {"shape2D": None, "firstorder": ["Mean"]}, "setting": {"force2D": True}}
    params = RadiomicsParams(json.dumps(content))
    assert column_names(params)[0] == "original_shape2D_Elongation"
    plane = sitk.GetArrayFromImage(breast.mask)
    plane[:9] = plane[10:] = 0
    mask = sitk.GetImageFromArray(plane)
    mask.CopyInformation(breast.mask)
    assert_identical(extract(replace(breast, mask=mask), params), execute(whole(breast.image, mask), params))
    with pytest.raises(CaseError, match="more than 1, cannot compute 2D shape"):
        extract(breast, params)


def test_features_that_pyradiomics_leaves_out_are_nan(breast: Roi) -> None:
    """A sigma wider than the image: pyradiomics skips the filter."""
    params = params_of({"Original": {}, "LoG": {"sigma": [30.0]}})
    values = extract(breast, params)
    assert tuple(values) == column_names(params)
    assert math.isnan(values["log-sigma-30-0-mm-3D_firstorder_Mean"])
    assert not math.isnan(values["original_firstorder_Mean"])


def masked(breast: Roi, *voxels: tuple[int, int, int]) -> Roi:
    mask = np.zeros(sitk.GetArrayViewFromImage(breast.mask).shape, np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(breast.mask)
    return replace(breast, mask=image)


def test_a_mask_too_small_is_a_problem_of_the_case(breast: Roi) -> None:
    for voxels, reason in (
        ((), "nothing is segmented"),
        (((9, 70, 25),), "only contains 1 segmented voxel"),
        (((9, 70, 25), (9, 71, 25)), "too few dimensions"),
    ):
        with pytest.raises(CaseError, match=reason) as caught:
            extract(masked(breast, *voxels), read_params(""))
        assert caught.value.problem.code == Code.RADIOMICS_FAILED
        assert "\n" not in caught.value.problem.reason


def test_nothing_is_printed_or_warned(breast: Roi, capfd: pytest.CaptureFixture[str]) -> None:
    """Two equal voxels make pyradiomics divide by zero; a warning would fail this test."""
    flat = masked(breast, (9, 70, 25), (9, 71, 25), (9, 71, 26))
    values = extract(replace(flat, image=flat.image * 0), read_params(""))
    assert values["original_firstorder_Variance"] == 0
    assert all(type(value) is float for value in values.values())
    assert capfd.readouterr() == ("", "")


def test_the_studys_file_is_read_and_enters_the_digest_by_content(tmp_path: Path) -> None:
    params = read_params(str(STUDY_FILE))
    copy = tmp_path / "copy.yaml"
    copy.write_text(f"# another comment\n{STUDY_FILE.read_text()}")
    assert read_params(str(copy)) == params
    assert digest(params) == digest(read_params(str(copy))) != digest(read_params(""))
    assert params.content["setting"]["resampledPixelSpacing"] == [2, 2, 2]
    assert len(column_names(params)) == 107


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("setting: {binwidth: 25}", "'binwidth'"),
        ("setting: {binWidth: wide}", "/setting/binWidth"),
        ("setting: {resampledPixelSpacing: [2, 2]}", "resampledPixelSpacing"),
        ("settings: {binWidth: 25}", "'settings'"),
        ("imageType: {Sobel: {}}", "Sobel"),
        ("imageType: {LBP2D: {lbp2DMethod: var}}", "lbp2DMethod"),
        ("imageType: {Wavelet: {wavelet: daubechies}}", "daubechies"),
        ("featureClass: {glcm: [Colour]}", "Colour"),
        ("setting: [binWidth", "expected"),
        ("", "not a parameter file"),
    ],
)
def test_a_bad_parameter_file_names_the_key(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(JobError, match=r"radiomics\.params") as caught:
        read_params(str(path))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_parameter_file_is_a_mistake_in_the_job() -> None:
    with pytest.raises(JobError, match=r"no file at nowhere\.yaml"):
        read_params("nowhere.yaml")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("original_shape_SurfaceArea", "mm^2"),
        ("original_shape_SurfaceVolumeRatio", "mm^-1"),
        ("original_shape_VoxelVolume", "mm^3"),
        ("original_shape_Maximum2DDiameterSlice", "mm"),
        ("original_shape_LeastAxisLength", "mm"),
        ("original_shape_Sphericity", "1"),
        ("original_shape2D_PixelSurface", "mm^2"),
        ("original_shape2D_PerimeterSurfaceRatio", "mm^-1"),
        ("log-sigma-2-0-mm-3D_firstorder_90Percentile", "u"),
        ("original_firstorder_TotalEnergy", "u^2 mm^3"),
        ("original_glrlm_RunEntropy", "1"),
    ],
)
def test_units_are_those_of_the_definitions(column: str, expected: str) -> None:
    assert unit(column) == expected
