"""A scan's result as DICOM: the mask as SEG and the measurements as SR, as other programs read them."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import xarray as xr
from pydicom.sr.codedict import codes

from prognosis_dask.cohort.series import SeriesListing
from prognosis_dask.cohort.stack import even_runs
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import JobError
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.masks import read_mask
from prognosis_dask.imaging.series import run_grid
from prognosis_dask.prediction import dicom
from prognosis_dask.prediction.dicom import SCHEME, mask_segmentation, own_code
from prognosis_dask.prediction.scan import predict_scan
from prognosis_dask.radiomics.codes import ibsi_code
from prognosis_dask.volumes.grid import Grid
from tests.dicom_helpers import case_of, list_series, write_series
from tests.served_models import make_survival_run

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def test_a_feature_has_ibsis_code_where_it_has_ibsis_value_and_dicoms_dictionary_agrees() -> None:
    page = (Path(__file__).parents[1] / "docs" / "ibsi.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `?(\w*)`? \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 107
    for name, tag, said in rows:
        assert ibsi_code(f"original_{name}")[0] == (ibsi_code(tag)[0] if said == "equal" else ""), name
    known = {getattr(codes.IBSI, name).value: getattr(codes.IBSI, name).meaning for name in codes.IBSI.dir()}
    words = {"shape_MeshVolume": "Volume of Mesh", "glcm_Idmn": "Normalized Inverse Difference Moment of GLCM"}
    words |= {"glszm_ZoneEntropy": "Zone Size Entropy", "gldm_DependenceVariance": "Dependence count variance"}
    assert {name: known[ibsi_code(f"original_{name}")[0]] for name in words} == words
    named = [name for name, _, said in rows if said == "equal" and not name.startswith("firstorder")]
    assert [name for name in named if ibsi_code(f"original_{name}")[0] not in known] == []


def parts_of(listing: SeriesListing) -> list[Grid]:
    return [run_grid(listing, run) for run in even_runs(listing, ImageSection().gap_tolerance)]


@pytest.mark.parametrize("kind", ["oblique", "parts", "one slice"])
def test_the_seg_is_the_mask_bit_for_bit(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(7)
    stored = rng.integers(0, 900, (9, 21, 35), dtype=np.int16)
    orientation = (1, 0, 0, 0, 1, 0) if kind == "parts" else OBLIQUE
    series = write_series(tmp_path / "ct", stored, spacing=(0.7, 0.9, 2.5), orientation=orientation)
    if kind == "parts":
        (series / "003.dcm").unlink()
    listing = list_series(series)
    grid = parts_of(listing)[-1]
    mask = rng.random(grid.size[::-1]) < 0.3
    if kind == "one slice":
        mask[np.arange(len(mask)) != 4] = False
    path = tmp_path / "mask.dcm"
    mask_segmentation("GTV", listing, grid, mask).save_as(path)
    read = read_mask(str(path), (), grid, resample=False, one_slice=True)
    assert np.array_equal(read, mask)
    held = highdicom.seg.segread(path)
    assert held.segmented_property_types == [codes.SCT.Lesion]
    first = pydicom.dcmread(next(series.iterdir()))
    assert (held.FrameOfReferenceUID, held.PatientID) == (first.FrameOfReferenceUID, first.PatientID)
    sources = {uid for _, _, uid in held.get_source_image_uids()}
    assert sources <= {one.sop_uid for one in listing.slices}


@pytest.fixture(scope="module")
def lung1(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lung1")
    predict_scan(make_survival_run(folder / "model"), shared_data / "lung1_002", folder / "out", dicom=True)
    return folder / "out"


def test_lung1_002s_measurements_are_the_published_ones_with_codes_and_units(lung1: Path, shared_data: Path) -> None:
    report = highdicom.sr.srread(lung1 / "measurements.sr.dcm")
    segmentation = highdicom.seg.segread(lung1 / "mask.seg.dcm")
    measured, predicted = report.content.get_volumetric_roi_measurement_groups()
    assert measured.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    assert measured.tracking_uid == predicted.tracking_uid == segmentation.SegmentSequence[0].TrackingUID
    found = {}
    for one in measured.get_measurements():
        found[(one.name.scheme_designator, one.name.value)] = one.value, one.unit.value
    with (shared_data / "lung1_002" / "reference_radiomics.csv").open() as stream:
        [row] = csv.DictReader(stream)
    published = {name: float(value) for name, value in row.items() if name.startswith("original_")}
    assert len(published) == len(found) == 107
    for name, value in published.items():
        code = ibsi_code(name)[0]
        key = ("IBSI", code) if code else (SCHEME, own_code(name))
        assert found[key][0] == pytest.approx(value, rel=1e-6), name
    assert found["IBSI", "RNU0"][1] == "mm3"
    assert found["IBSI", "Q4LE"][1] == "[hnsf'U]"
    assert found["IBSI", "ACUI"][1] == "1"
    shares = {one.name.meaning: one.value for one in predicted.get_measurements()}
    assert 0 < shares["survival at 730 days"] < shares["survival at 365 days"] < 1
    said = predicted[0].to_json()
    assert "Research use only" in said
    assert "120 cases of 120 patients" in said


def test_an_sr_names_no_folder_of_the_machine_that_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "segment.network.told": '{"network": "file:/srv/nets/lung.onnx"}',
        "radiomics.image": "080a9ed428559ef6",
    }
    monkeypatch.setattr(dicom, "read_features", lambda run: xr.Dataset(attrs={"settings": settings}))
    made = dicom._measuring(dicom.DicomTask("out", "run", ImageSection(), brain=False, result={}))
    said = " ".join(item.to_json() for item in made)
    assert "080a9ed4" in said
    assert "/srv" not in said


def test_lung1_002s_seg_is_the_mask_that_was_measured(lung1: Path, shared_data: Path, tmp_path: Path) -> None:
    [contours] = (shared_data / "lung1_002" / "rtstruct").iterdir()
    numbers = [
        int(roi.ROINumber) for roi in pydicom.dcmread(contours).StructureSetROISequence if roi.ROIName == "GTV-1"
    ]
    series = shared_data / "lung1_002" / "ct"
    drawn = load_roi(case_of(series, contours, tuple(numbers), tmp_path), ImageSection(), full=True)
    written = load_roi(case_of(series, lung1 / "mask.seg.dcm", (), tmp_path), ImageSection(), full=True)
    assert drawn.full == written.full
    assert np.array_equal(sitk.GetArrayViewFromImage(drawn.mask), sitk.GetArrayViewFromImage(written.mask))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not on this machine")
@pytest.mark.parametrize("name", ["mask.seg.dcm", "measurements.sr.dcm"])
def test_dciodvfy_finds_no_error(lung1: Path, name: str) -> None:
    told = subprocess.run(["dciodvfy", str(lung1 / name)], capture_output=True, text=True, check=False)
    assert [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")] == []


def test_files_that_are_no_dicom_are_refused_at_once(tmp_path: Path) -> None:
    image = tmp_path / "ct.nii.gz"
    image.touch()
    with pytest.raises(JobError, match=r"ct\.nii\.gz is no DICOM"):
        predict_scan(make_survival_run(tmp_path / "model"), image, tmp_path / "out", mask=image, dicom=True)
