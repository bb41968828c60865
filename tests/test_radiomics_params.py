"""A parameter file is tried before any case is: what pyradiomics would trip over, or leave out, is said by its key."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray
from prognosis_dask.config.job import load_job
from prognosis_dask.errors import CaseError, Code, JobError, collected_warnings
from prognosis_dask.imaging.roi import Roi, crop_roi, grid_of
from prognosis_dask.modelling.data.families import family_of
from prognosis_dask.radiomics import extractor
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.parameter_file import column_names, job_params, read_params, unit
from prognosis_dask.radiomics.params import RadiomicsParams
from prognosis_dask.radiomics.texture import FEWEST, MOST, warn_of_few
from tests.test_radiomics import execute

PARAMS = Path(__file__).parents[1] / "jobs" / "params"


def params_of(classes: list[str], image_types: dict[str, Any] | None = None, **settings: Any) -> RadiomicsParams:
    content = {"imageType": image_types or {"Original": {}}, "featureClass": {name: [] for name in classes}}
    return RadiomicsParams(json.dumps(content | {"setting": settings}))


def made_roi(least: float, greatest: float, side: int = 12) -> Roi:
    """A cube of random real numbers between the two, both of which it has."""
    values = np.random.default_rng(1).uniform(least, greatest, (side, side, side)).astype(np.float32)
    mask = np.zeros(values.shape, np.uint8)
    mask[2:-2, 2:-2, 2:-2] = 1
    values[2, 2, 2], values[3, 3, 3] = least, greatest
    image = sitk.GetImageFromArray(values)
    return Roi(image, sitk.GetImageFromArray(mask), grid_of(image), (0, 0, 0))


def test_deprecated_features_that_execute_computes_where_they_are_named_have_its_values() -> None:
    named = {
        "shape": ["Compactness1", "Compactness2", "SphericalDisproportion", "Elongation"],
        "firstorder": ["StandardDeviation", "Mean"],
    }
    params, roi = RadiomicsParams(json.dumps({"featureClass": named})), made_roi(0, 200)
    values = extract(roi, params)
    assert len(values) == 6
    assert values == execute(roi, params)


@pytest.mark.parametrize(
    ("text", "named", "advice"),
    [
        ('setting: {binWidth: "25"}', "setting.binWidth is '25'", "quotation marks"),
        ("setting: {binWidth: }", "setting.binWidth has no value", "delete the line"),
        ("setting: {binWidth: .inf}", "setting.binWidth is inf", "a number"),
        ("setting: {binWidth: .nan}", "setting.binWidth is nan", "a number"),
        ("setting: {binWidth: -5}", "/setting/binWidth", "-5"),
        ("setting: {binCount: }", "setting.binCount has no value", "delete the line"),
        ("featureClass: {glcm: [Contrast, Homogeneity1]}", "names Homogeneity1", "equal to GLCM - Inverse Difference"),
        ("featureClass: {gldm: [DependencePercentage]}", "names DependencePercentage", "always computes 1"),
        ("setting: {distances: []}", "setting.distances is []", "one value or more"),
        ("setting: {resampledPixelSpacing: []}", "setting.resampledPixelSpacing is []", "one value or more"),
        ("setting: {resegmentRange: []}", "setting.resegmentRange is []", "one value or more"),
        ("setting: {resegmentRange: [3, -3]}", "setting.resegmentRange is [3, -3]", "a lower limit and a higher one"),
        ("setting: {resegmentRange: [1, 2, 3]}", "setting.resegmentRange is [1, 2, 3]", "a higher one"),
        ("setting: {padDistance: }", "setting.padDistance has no value", "delete the line"),
        ("setting: {interpolator: true}", "setting.interpolator is True", "a name or a number"),
        ('imageType: {Original: {binWidth: "5"}}', "imageType.Original.binWidth is '5'", "quotation marks"),
        ("imageType: {LoG: {}}", "imageType.LoG gives no feature", "no sigma"),
        ("imageType: {LoG: {}, Logarithm: {}}", "imageType.LoG gives no feature", "no sigma"),
        ("imageType: {Original: {}, LoG: {sigma: []}}", "imageType.LoG.sigma is []", "one value or more"),
        ('imageType: {LoG: {sigma: ["3"]}}', "imageType.LoG.sigma is '3'", "quotation marks"),
        ("featureClass: {shape2D: }", "featureClass.shape2D gives no feature", "force2D: true"),
        ("featureClass: {shape: , shape2D: , glcm: }", "featureClass.shape2D gives no feature", "force2D: true"),
        ("featureClass: {glcm: [Dissimilarity, Contrast]}", "featureClass.glcm names Dissimilarity", "take it out"),
        ("imageType: {Original: {}, Wavelet: {}}\nfeatureClass: {shape: }", "imageType.Wavelet", "Original"),
    ],
)
def test_a_setting_that_pyradiomics_would_trip_over_is_refused_before_any_case(
    text: str, named: str, advice: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(JobError, match=r"radiomics\.params") as caught:
        read_params(str(path))
    assert named in str(caught.value)
    assert advice in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "imageType: {Original: {}}", "setting: {binWidth: 25.0}"])
def test_what_pyradiomics_adds_by_itself_need_not_give_features(text: str, tmp_path: Path) -> None:
    """Without a list of classes pyradiomics takes all, shape2D among them, which has none in three dimensions."""
    path = tmp_path / "params.yaml"
    path.write_text(text or "setting: {removeOutliers: , resampledPixelSpacing: , interpolator: }")
    assert len(column_names(read_params(str(path)))) == 107


@pytest.mark.parametrize("width", [0.5, 0.05, 0.01, 1e-9])
def test_names_of_columns_cost_no_matrix_of_the_datas_levels(width: float) -> None:
    """In a process that may take 1.5 GB of addresses more than it has when it begins."""
    filters = {"Original": {}, "Wavelet": {"binWidth": width}}
    params = params_of(["firstorder", "glcm", "glszm"], filters, binWidth=width)
    code = (
        "import sys, resource\n"
        "from prognosis_dask.radiomics.parameter_file import column_names\n"
        "from prognosis_dask.radiomics.params import RadiomicsParams\n"
        "import radiomics.featureextractor, SimpleITK\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 1_500_000_000,) * 2)\n"
        "print(len(column_names(RadiomicsParams(sys.argv[1]))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, params.text], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str((18 + 24 + 16) * 9), done.stderr


def test_a_wide_filter_costs_no_wide_image() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = column_names(params_of(["firstorder"], {"LoG": {"sigma": [1.0, 1000.0]}}))
    assert len(names) == 36
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("classes", [["glcm"], ["firstorder", "glszm"]])
def test_too_many_grey_levels_name_the_bins_that_would_do(classes: list[str]) -> None:
    params = params_of(classes, binWidth=0.01)
    with pytest.raises(CaseError) as caught:
        extract(made_roi(0.0, 760.0), params)
    assert caught.value.problem.code == Code.RADIOMICS_FAILED
    assert "binWidth 0.01 makes 76,000 grey levels of the original image's ROI" in caught.value.problem.reason
    assert "set another binWidth, 10 makes some 64 levels of it" in caught.value.problem.reason


def test_first_order_features_take_any_number_of_levels() -> None:
    roi, params = made_roi(0.0, 760.0), params_of(["firstorder"], binWidth=0.01)
    assert extract(roi, params)["original_firstorder_Entropy"] == execute(roi, params)["original_firstorder_Entropy"]
    with pytest.raises(CaseError, match="set another binWidth"):
        extract(roi, params_of(["firstorder"], binWidth=1e-9))


def test_as_many_levels_as_are_allowed_are_computed() -> None:
    roi, params = made_roi(0.0, MOST - 1.0, 8), params_of(["gldm"], binWidth=1)
    assert list(extract(roi, params).values()) == list(execute(roi, params).values())


def test_an_roi_in_one_bin_is_warned_of() -> None:
    """SUV 4 to 22 in bins of 25."""
    levels: dict[str, int] = {}
    values = extract(made_roi(4.0, 22.0), read_params(""), levels=levels)
    assert levels == {"original": 1}
    assert values["original_glcm_Contrast"] == 0
    with collected_warnings() as found:
        warn_of_few(levels, {"binWidth": 25}, "PT")
        warn_of_few({"original": FEWEST}, {"binWidth": 25}, "PT")
    (warning,) = found
    assert warning.code == Code.FEW_GREY_LEVELS
    assert "1 in original) with binWidth 25" in warning.reason
    assert "give PT a smaller binWidth" in warning.reason


def test_first_order_features_alone_are_not_warned_of() -> None:
    levels: dict[str, int] = {}
    extract(made_roi(4.0, 22.0), params_of(["firstorder", "shape"]), levels=levels)
    assert levels == {}


def test_every_parameter_file_of_the_project_is_sound() -> None:
    files = sorted(PARAMS.glob("*.yaml"))
    assert {"ct.yaml", "mr.yaml", "mr_zscore.yaml", "pt.yaml", "lung1.yaml"} <= {file.name for file in files}
    for file in files:
        assert len(column_names(read_params(str(file)))) == 107, file


@pytest.mark.parametrize("job", sorted(PARAMS.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_the_jobs_of_the_project_have_bins_that_fit_what_they_measure(job: Path) -> None:
    """A tumour of 150 HU, of 10 SUV, of MR at 5 deviations of its image, and of z-scores from -2 to 3."""
    sections = load_job(job)
    params = job_params(sections.radiomics.params)
    spans = {"CT": 150.0, "PT": 10.0, "MR": 5.0 if sections.brain.enabled else 300.0}
    named = [name for name, _ in params.by_modality if name in spans]
    for modality in named or (["MR"] if sections.brain.enabled else ["CT"]):
        least, greatest = -0.4 * spans[modality], 0.6 * spans[modality]
        plain = params.of(modality).content
        plain["setting"] = {k: v for k, v in plain["setting"].items() if k in ("binWidth", "binCount")}
        levels: dict[str, int] = {}
        extract(made_roi(least, greatest), RadiomicsParams(json.dumps(plain)), levels=levels)
        assert levels["original"] >= 6, (modality, levels)


def test_a_job_names_its_parameters_by_modality(tmp_path: Path) -> None:
    (tmp_path / "pt.yaml").write_text("setting: {binWidth: 0.5}")
    (tmp_path / "other.yaml").write_text("setting: {binCount: 32}")
    job = tmp_path / "job.toml"
    job.write_text('[radiomics.params]\nPET = "pt.yaml"\ndefault = "other.yaml"\n')
    params = job_params(load_job(job).radiomics.params)
    assert params.of("PT").settings == {"binWidth": 0.5}
    assert params.of("CT").settings == params.of("MR").settings == {"binCount": 32}
    changed = load_job(job, [f"radiomics.params.CT={tmp_path / 'pt.yaml'}"])
    assert job_params(changed.radiomics.params).of("CT").settings == {"binWidth": 0.5}
    job.write_text('[radiomics]\nparams = "pt.yaml"\n')
    assert job_params(load_job(job).radiomics.params).of("MR").settings == {"binWidth": 0.5}


def test_several_files_of_a_job_share_their_work_and_keep_the_firsts_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("imageType: {Original: {}, LoG: {sigma: [1.0]}}\nsetting: {binWidth: 5}")
    (tmp_path / "fine_bins.yaml").write_text("imageType: {Original: {}, LoG: {sigma: [1.0]}}\nsetting: {binWidth: 2}")
    (tmp_path / "few.yaml").write_text("featureClass: {firstorder: [Mean, Entropy]}\nsetting: {binWidth: 50}")
    job = tmp_path / "job.toml"
    job.write_text('[radiomics]\nparams = ["a.yaml", "fine_bins.yaml", "few.yaml"]\n')
    several = job_params(load_job(job).radiomics.params).of("CT")
    alone = {
        part: read_params(str(tmp_path / f"{name}.yaml"))
        for part, name in (("", "a"), ("fine-bins.", "fine_bins"), ("few.", "few"))
    }
    roi, loads = made_roi(0.0, 100.0), []
    meshes: list[BoolArray] = []
    mesh = extractor.mesh
    monkeypatch.setattr(extractor, "mesh", lambda mask, spacing: meshes.append(mask) or mesh(mask, spacing))
    crop = crop_roi(roi, 0.0)
    levels: dict[str, int] = {}
    values = extract(crop, several, lambda: loads.append(roi) or roi, levels=levels)
    assert len(meshes) == 1
    expected = {part + name: value for part, one in alone.items() for name, value in extract(roi, one).items()}
    assert values == expected
    assert list(values) == list(column_names(several)) == list(expected)
    assert {unit(name) for name in values if "MeshVolume" in name} == {"mm^3"}
    assert {family_of(name) for name in values} == {"radiomics"}
    assert levels["original"] < levels["fine-bins.original"]


def test_one_file_in_a_list_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("setting: {binWidth: 5}")
    path = str(tmp_path / "a.yaml")
    assert job_params([path]) == job_params(path) == job_params({"default": [path]})
    assert job_params(path).of("CT").identity == ({"setting": {"binWidth": 5}},)
    with pytest.raises(JobError, match="names the features of its further files a, a; rename a file"):
        job_params([path, path, path])
    with pytest.raises(JobError, match=r"radiomics\.params is an empty list"):
        job_params([])


def test_a_modality_without_parameters_is_named(tmp_path: Path) -> None:
    params = job_params({"CT": "", "MR": ""})
    with pytest.raises(JobError, match="no parameter file for PT, only for CT, MR; add PT = "):
        params.of("PT")
    with pytest.raises(JobError, match="'SUV' is no modality of images, expected CT, MR, PT"):
        job_params({"SUV": ""})
    with pytest.raises(JobError, match="is empty; name a file for each modality"):
        job_params({})
    job = tmp_path / "job.toml"
    job.write_text("[radiomics.params]\nCT = 25\n")
    with pytest.raises(JobError, match=r"radiomics\.params\.CT is 25, expected text"):
        load_job(job)


def test_a_flat_roi_in_a_filtered_image_is_counted_too() -> None:
    roi = made_roi(0.0, 100.0)
    levels: dict[str, int] = {}
    values = extract(replace(roi, image=roi.image * 0), params_of(["glcm"], {"Wavelet": {}}), levels=levels)
    assert set(levels) == {f"wavelet-{a}{b}{c}" for a in "LH" for b in "LH" for c in "LH"}
    assert set(levels.values()) == {1}
    assert not any(math.isinf(value) for value in values.values())
