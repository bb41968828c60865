"""IBSI's features: the reference values of its phantoms and configurations, from files and from a run."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.distance import pdist, squareform

import prognosis_dask
from prognosis_dask.config.job import CohortSection, DeepSection, Job, ModelSection
from prognosis_dask.config.job import SynthSection as Synth
from prognosis_dask.config.radiomics import IbsiSection, RadiomicsSection
from prognosis_dask.errors import CaseError, JobError
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.imaging.roi import Roi, crop_roi, grid_of
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.ibsi import measure, morphology, names
from prognosis_dask.radiomics.ibsi.images import Prepared, read_filter
from prognosis_dask.radiomics.params import DEFAULTS, RadiomicsParams
from prognosis_dask.workflows.run import check_inputs

CHEST = (-1000.0, 400.0)
#: IBSI reference manual (arXiv:1612.07003v11), table 5.2.
CONFIGURATIONS = {
    "a": IbsiSection(by_slice=True, intensity_range=(-500.0, 400.0), bin_width=25.0),
    "b": IbsiSection(by_slice=True, intensity_range=(-500.0, 400.0), spacing_mm=2.0),
    "c": IbsiSection(intensity_range=CHEST, spacing_mm=2.0, bin_width=25.0, ivh_bin_width=2.5),
    "d": IbsiSection(outlier_sigma=3.0, spacing_mm=2.0),
    "e": IbsiSection(
        intensity_range=CHEST, outlier_sigma=3.0, spacing_mm=2.0, interpolator="spline", ivh_bin_count=1000
    ),
}


def phantom(folder: Path) -> Roi:
    image = sitk.ReadImage(str(folder / "image" / "phantom.nii.gz"))
    mask = sitk.Cast(sitk.ReadImage(str(folder / "mask" / "mask.nii.gz")), sitk.sitkUInt8)
    mask.CopyInformation(image)
    return Roi(image, mask, grid_of(image), (0, 0, 0))


def references(path: Path) -> dict[str, tuple[float, float]]:
    """By tag the reference value and its tolerance, at least half of the last printed digit."""
    found = {}
    with path.open(encoding="utf-8") as stream:
        for text, tolerance, tag in csv.reader(stream, delimiter=";"):
            if not text or tag == "tag":
                continue
            value = float(text)
            printed = 0.5001 * 10 ** (math.floor(math.log10(abs(value))) - 2) if value else 0.0
            found[tag] = value, max(float(tolerance), printed)
    return found


def off(values: dict[str, float], expected: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    return {
        tag: (values[tag], value)
        for tag, (value, tolerance) in expected.items()
        if tag in values and not abs(values[tag] - value) <= tolerance
    }


@pytest.mark.parametrize(("by_slice", "checked"), [(False, 210), (True, 346)])
def test_the_digital_phantom_has_its_reference_values(shared_data: Path, by_slice: bool, checked: int) -> None:
    roi = phantom(shared_data / "ibsi" / "digital_phantom")
    with pytest.warns(UserWarning, match="fewer than 8 grey levels in the ROI \\(4\\)"):
        values = measure(roi, IbsiSection(by_slice=by_slice, bin_width=1.0), whole=True)
    expected = references(shared_data / "ibsi" / "reference" / "ibsi_1_dig_phantom.csv")
    assert not off(values, expected)
    assert len(values.keys() & expected.keys()) == checked


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_ct_phantom_has_its_reference_values(shared_data: Path, name: str) -> None:
    roi = phantom(shared_data / "ibsi" / "ct_phantom" / "nifti")
    values = measure(crop_roi(roi, 20.0), CONFIGURATIONS[name], lambda: roi, whole=True)
    expected = references(shared_data / "ibsi" / "reference" / f"ibsi_1_chest_config_{name}.csv")
    workflow = ("img_", "vox_", "mean_", "min_", "max_", "int_mask_", "morph_mask_")
    features = {tag for tag in expected if not tag.startswith(workflow)}
    assert not off(values, expected)
    assert features <= values.keys()


#: The filters of IBSI 2 (arXiv:2006.05470, table 6.3), within slices and in space.
FILTERS = {
    "2": ("mean:5", "mean:5"),
    "3": ("log:1.5", "log:1.5"),
    "4": ("laws:L5E5:7", "laws:L5E5E5:7"),
    "5": ("gabor:5:2:1.5", "gabor:5:2:1.5"),
    "6": ("db3:LH:1", "db3:LLH:1"),
    "7": ("db3:HH:2", "db3:HHH:2"),
    "8": ("simoncelli:1", "simoncelli:1"),
    "9": ("simoncelli:2", "simoncelli:2"),
}


@pytest.mark.parametrize(("way", "by_slice"), [("A", True), pytest.param("B", False, marks=pytest.mark.slow)])
def test_response_maps_have_the_reference_values_of_ibsi_2(shared_data: Path, way: str, by_slice: bool) -> None:
    roi = phantom(shared_data / "ibsi" / "ct_phantom" / "nifti")
    own = IbsiSection(by_slice=by_slice, intensity_range=CHEST, bin_width=25.0)
    if not by_slice:
        own = replace(own, spacing_mm=1.0, interpolator="spline")
    filters = {number: names[0 if by_slice else 1] for number, names in FILTERS.items()}
    values = measure(roi, replace(own, filters=tuple(filters.values())), whole=True)
    with (Path(__file__).parent / "ibsi_2_reference.csv").open(encoding="utf-8") as stream:
        rows = {row["configuration"]: row for row in csv.DictReader(stream, delimiter=";")}
    checked = 0
    for number, name in {"1": "", **filters}.items():
        for tag, text in rows[f"{number}.{way}"].items():
            if tag != "configuration" and text:
                value, tolerance = map(float, text.split())
                assert abs(values[f"{name}.{tag}" if name else tag] - value) <= tolerance, (number, tag)
                checked += 1
    assert checked == (9 * 18 if by_slice else 9 * 18 - 1)  # 8.B has no coefficient of dispersion


def test_a_response_does_not_depend_on_the_margin_of_the_crop(shared_data: Path) -> None:
    roi = phantom(shared_data / "ibsi" / "ct_phantom" / "nifti")
    settings = IbsiSection(spacing_mm=4.0, filters=("mean:3", "log:4", "db3:LLH:1", "laws:L3E3S3:2", "simoncelli:1"))
    whole = measure(roi, settings, whole=True)
    assert measure(crop_roi(roi, 30.0), settings, lambda: roi, whole=True) == whole


@pytest.mark.parametrize(
    "name", ["meen:5", "mean:4", "log:0", "laws:L5E5:7", "db3:LH:1", "gabor:5:2", "simoncelli:a", "log"]
)
def test_a_filter_that_there_is_not_is_refused_with_the_forms(name: str) -> None:
    with pytest.raises(
        JobError, match=rf"ibsi\.filters: '{name}' is no filter \(.+\); expected mean:VOXELS, log:SIGMA_MM"
    ):
        read_filter(name, by_slice=False)


def test_the_page_says_truly_which_of_pyradiomics_features_are_ibsis(shared_data: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "ibsi.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)? ?\| (.*) \|$", page, re.MULTILINE)
    roi = crop_roi(phantom(shared_data / "ibsi" / "ct_phantom" / "nifti"), 30.0)
    own = extract(roi, RadiomicsParams(json.dumps({**DEFAULTS, "setting": {"binWidth": 25}})))
    values = measure(roi, IbsiSection(bin_width=25.0, intensity_range=(-1000.0, 3065.0)), whole=True)
    assert [f"original_{name}" for name, _, _ in rows] == list(own)
    for name, tag, said in rows:
        alike = bool(tag) and math.isclose(own[f"original_{name}"], values[tag], rel_tol=1e-9)
        assert alike == (said == "equal"), name


@pytest.mark.parametrize("interpolator", ["linear", "spline"])
def test_values_do_not_depend_on_the_margin_of_the_crop(shared_data: Path, interpolator: str) -> None:
    roi = phantom(shared_data / "ibsi" / "ct_phantom" / "nifti")
    settings = IbsiSection(spacing_mm=4.0, interpolator=interpolator)  # type: ignore[arg-type]
    whole = measure(roi, settings, whole=True)
    for margin in (0.0, 30.0):
        assert measure(crop_roi(roi, margin), settings, lambda: roi, whole=True) == whole


def test_autocorrelation_is_the_sum_over_all_pairs_of_voxels() -> None:
    random = np.random.default_rng(2)
    mask = random.random((4, 6, 7)) < 0.6
    spacing = (3.0, 1.0, 0.8)
    prepared = Prepared(random.normal(50, 20, mask.shape), mask, mask, spacing)
    x, weights = prepared.values, squareform(1 / pdist(np.argwhere(mask) * spacing))
    away, n = x - x.mean(), len(x)
    found = morphology(prepared)
    moran = n / weights.sum() * (weights * np.outer(away, away)).sum() / (away @ away)
    geary = (n - 1) / (2 * weights.sum()) * (weights * (x[:, None] - x) ** 2).sum() / (away @ away)
    assert found["morph_moran_i"] == pytest.approx(moran, rel=1e-9)
    assert found["morph_geary_c"] == pytest.approx(geary, rel=1e-9)


def test_a_region_of_one_voxel_has_every_name_and_no_invented_texture() -> None:
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[2, 2, 2] = 1
    image, region = sitk.GetImageFromArray(np.full(mask.shape, 7.0)), sitk.GetImageFromArray(mask)
    for settings in (IbsiSection(), IbsiSection(by_slice=True)):
        values = measure(Roi(image, region, grid_of(image), (0, 0, 0)), settings)
        assert tuple(values) == names(settings)
        assert values["stat_mean"] == 7.0
        assert np.isnan(values["morph_moran_i"])
        assert np.isnan([value for name, value in values.items() if name.startswith("cm_")]).all()


def test_a_range_or_bins_that_do_not_fit_are_refused_with_what_was_seen() -> None:
    image = sitk.GetImageFromArray(np.arange(1000.0).reshape(10, 10, 10))
    mask = sitk.GetImageFromArray(np.ones((10, 10, 10), np.uint8))
    roi = Roi(image, mask, grid_of(image), (0, 0, 0))
    with pytest.raises(CaseError, match=r"no voxel .* ibsi\.intensity_range: the region goes from 0 to 999"):
        measure(roi, IbsiSection(intensity_range=(2000.0, 3000.0)))
    with pytest.raises(CaseError, match=r"ibsi\.bin_width 0\.1 makes 9,991 grey levels"):
        measure(roi, IbsiSection(bin_width=0.1))


def test_a_run_has_the_family_beside_others_and_resumes_it_by_its_own_keys(tmp_path: Path) -> None:
    job = Job(
        "ibsi",
        cohort=CohortSection(roi=("GTV-1",)),
        synth=Synth(patients=2, seed=3, bad_cases=False),
        radiomics=RadiomicsSection(enabled=False),
        ibsi=IbsiSection(enabled=True, spacing_mm=3.0, filters=("log:3",)),
        deep=DeepSection(enabled=False),
        model=ModelSection(enabled=False),
    )
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        result = prognosis_dask.run(job, client=client, out=tmp_path)
        dataset = prognosis_dask.read_features(tmp_path)
        finer = replace(job, ibsi=replace(job.ibsi, bin_count=64))
        changed = prognosis_dask.run(finer, client=client, out=tmp_path)
    done = np.isfinite(dataset["volume_ml"].values)
    assert 0 < done.sum() == result.stages["ibsi"]["done"] == changed.stages["ibsi"]["done"]
    assert changed.stages["roi"]["reused"] > 0 == changed.stages["roi"]["done"]
    assert tuple(dataset["ibsi_feature"].values) == names(job.ibsi)
    volume = dataset["ibsi"].sel(ibsi_feature="morph_vol_approx").values[done] / 1000
    np.testing.assert_allclose(volume, dataset["volume_ml"].values[done], rtol=0.1)
    assert '<th scope="row" class="l">ibsi</th>' in result.report.read_text(encoding="utf-8")


def test_a_model_of_the_family_without_its_stage_is_refused() -> None:
    job = Job("one", synth=Synth(patients=4), model=ModelSection(features="ibsi"), deep=DeepSection(enabled=False))
    with pytest.raises(JobError, match=r"ibsi.enabled is false; set ibsi.enabled = true"):
        check_inputs(job)
