"""PET values as SUVs by body weight, against the formula written out by hand, and real ones against GDCM's pixels."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.errors import Code, Problem, collected_warnings
from prognosis_dask.imaging.load import SUV, load_image, load_roi
from tests.dicom_helpers import problem_of, refer_to, write_rtstruct, write_series

F18, DOSE, WEIGHT = 6586.2, 370e6, 70.0
STORED = np.arange(6 * 12 * 14, dtype=np.int16).reshape(6, 12, 14)
#: One hour from the injection to the scan.
ONE_HOUR = WEIGHT * 1000 / (DOSE * 0.5 ** (3600 / F18))
PET: dict[str, Any] = {
    "Units": "BQML",
    "CorrectedImage": ["ATTN", "DECY"],
    "DecayCorrection": "START",
    "PatientWeight": WEIGHT,
    "SeriesDate": "20200102",
    "SeriesTime": "110000",
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "110000",
}
DRUG: dict[str, Any] = {
    "RadiopharmaceuticalStartTime": "100000",
    "RadionuclideTotalDose": DOSE,
    "RadionuclideHalfLife": F18,
}


def made(folder: Path, drug: dict[str, Any] | None = None, **values: Any) -> Path:
    """A PET series with a mask; a value of None takes an element away, a list of six is one for each slice."""
    write_series(folder / "pt", STORED, rescale=(0.5, 0), modality="PT")
    for number, path in enumerate(sorted((folder / "pt").iterdir())):
        dataset = pydicom.dcmread(path)
        own = {k: v[number] if isinstance(v, list) and len(v) == len(STORED) else v for k, v in (PET | values).items()}
        for name, value in own.items():
            if value is not None:
                setattr(dataset, name, value)
        item = Dataset()
        for name, value in (DRUG | (drug or {})).items():
            if value is not None:
                setattr(item, name, value)
        dataset.RadiopharmaceuticalInformationSequence = [item]
        dataset.save_as(path)
    square = np.array([[3.0, 3.0], [3.0, 7.0], [8.0, 7.0], [8.0, 3.0]])
    write_rtstruct(folder / "rs.dcm", [np.column_stack([square, np.full(4, z)]) for z in (4.0, 6.0)])
    refer_to(folder / "rs.dcm", folder / "pt")
    return folder


def private(folder: Path, group: int, creator: str, **elements: tuple[str, Any]) -> Path:
    for path in (folder / "pt").iterdir():
        dataset = pydicom.dcmread(path)
        block = dataset.private_block(group, creator, create=True)
        for name, (vr, value) in elements.items():
            block.add_new(int(name.removeprefix("x"), 16), vr, value)
        dataset.save_as(path)
    return folder


def indexed(folder: Path) -> tuple[Case, list[Problem]]:
    index_cohort([folder], folder / "out", CohortSection(roi=("GTV-1",)))
    [case] = read_cases(folder / "out" / "cases.csv")
    return case, read_problems(folder / "out" / "problems.csv")


def factors(folder: Path, **image: Any) -> tuple[list[float], list[Problem]]:
    """What each slice's rescaled values were multiplied with."""
    case, _ = indexed(folder)
    with collected_warnings() as warnings:
        values = sitk.GetArrayFromImage(load_image(case.image, ImageSection(**image)))
    ratio = values[:, 1:] / (STORED[:, 1:] * 0.5)
    assert np.ptp(ratio, axis=(1, 2)).max() < 1e-12 * ratio.max()
    return [float(value) for value in ratio.mean(axis=(1, 2))], warnings


def all_are(expected: float) -> Any:
    return pytest.approx([expected] * len(STORED), rel=1e-12)


def code(folder: Path) -> Code:
    case, problems = indexed(folder)
    told = problem_of(lambda: load_roi(case, ImageSection()))
    assert told in {problem.code for problem in problems}, "the index tells what the run will refuse"
    load_roi(case, ImageSection(pet="stored"))
    return told


def test_activity_corrected_to_the_start_of_the_scan_is_divided_by_the_dose_left_then(tmp_path: Path) -> None:
    assert factors(made(tmp_path)) == (all_are(ONE_HOUR), [])


def test_activity_corrected_to_the_injection_is_divided_by_the_whole_dose(tmp_path: Path) -> None:
    assert factors(made(tmp_path, DecayCorrection="ADMIN")) == (all_are(WEIGHT * 1000 / DOSE), [])


def test_activity_without_decay_correction_is_divided_by_the_dose_left_at_each_image_s_mean_count(
    tmp_path: Path,
) -> None:
    begins = [f"11{2 * k:02d}00" for k in range(6)]
    found, _ = factors(
        made(
            tmp_path,
            DecayCorrection="NONE",
            CorrectedImage=["ATTN"],
            AcquisitionTime=begins,
            ActualFrameDuration=120_000,
        )
    )
    for k, factor in enumerate(found):  # the mean activity of the frame by adding up its tenths of a second
        left = np.mean([0.5 ** ((3600 + 120 * k + (i + 0.5) / 10) / F18) for i in range(1200)])
        assert factor == pytest.approx(WEIGHT * 1000 / (DOSE * left), rel=1e-8)


def test_later_beds_are_corrected_to_the_series_time_and_not_to_their_own(tmp_path: Path) -> None:
    begins = [f"11{4 * k:02d}00" for k in range(6)]
    assert factors(made(tmp_path, AcquisitionTime=begins)) == (all_are(ONE_HOUR), [])


def test_a_series_made_after_the_scan_takes_the_first_acquisition(tmp_path: Path) -> None:
    begins = [f"11{4 * k:02d}00" for k in range(6)]
    assert factors(made(tmp_path, SeriesTime="154500", AcquisitionTime=begins)) == (all_are(ONE_HOUR), [])


def test_a_series_made_of_the_later_beds_takes_the_time_that_its_frames_count_from(tmp_path: Path) -> None:
    duration = 240.0
    mean = 0.5 * duration - math.log(2) / F18 * duration**2 / 24  # of the logarithm, to second order
    found, _ = factors(
        made(
            tmp_path,
            SeriesTime="154500",
            AcquisitionTime=[f"11{20 + 4 * k:02d}00" for k in range(6)],
            FrameReferenceTime=[1000 * (1200 + 240 * k + mean) for k in range(6)],
            ActualFrameDuration=240_000,
        )
    )
    assert found == pytest.approx([ONE_HOUR] * 6, rel=1e-6)


def test_ge_s_own_time_of_the_scan_counts_where_the_series_was_made_later(tmp_path: Path) -> None:
    folder = made(tmp_path, SeriesTime="154500", AcquisitionTime=[f"11{20 + 4 * k:02d}00" for k in range(6)])
    private(folder, 0x0009, "GEMS_PETD_01", x0D=("DT", "20200102110000.00"))
    assert factors(folder)[0] == all_are(ONE_HOUR)


@pytest.mark.parametrize(
    ("drug", "series"),
    [
        ({"RadiopharmaceuticalStartTime": "233000"}, "003000"),
        ({"RadiopharmaceuticalStartTime": "233000", "RadiopharmaceuticalStartDateTime": "20200101233000"}, "003000"),
        ({"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20200101233000.0+0100"}, "003000"),
        # dates shifted when the names were removed: the time of day is what is left
        ({"RadiopharmaceuticalStartDateTime": "20050217100000"}, "110000"),
        ({"RadiopharmaceuticalStartDateTime": "20200103100000"}, "110000"),
    ],
)
def test_the_hour_between_injection_and_scan_is_found_across_midnight_and_shifted_dates(
    tmp_path: Path, drug: dict[str, Any], series: str
) -> None:
    assert factors(made(tmp_path, drug, SeriesTime=series, AcquisitionTime=series))[0] == all_are(ONE_HOUR)


def test_a_scan_over_midnight_without_acquisition_date_is_one_scan(tmp_path: Path) -> None:
    begins = ["235800", "235900", "000000", "000100", "000200", "000300"]
    folder = made(
        tmp_path,
        {"RadiopharmaceuticalStartTime": "225800"},
        SeriesTime="235800",
        AcquisitionTime=begins,
        AcquisitionDate=None,
    )
    assert factors(folder) == (all_are(ONE_HOUR), [])


def test_philips_counts_take_the_suv_factor_else_the_activity_factor(tmp_path: Path) -> None:
    for name, elements, expected in (
        ("both", {"x00": ("DS", "0.0005"), "x09": ("DS", "2.5")}, 0.0005),
        ("activity", {"x09": ("DS", "2.5")}, 2.5 * ONE_HOUR),
        ("zero", {"x00": ("DS", "0"), "x09": ("DS", "2.5")}, 2.5 * ONE_HOUR),
    ):
        folder = private(made(tmp_path / name, Units="CNTS"), 0x7053, "Philips PET Private Group", **elements)
        assert factors(folder)[0] == all_are(expected)


def test_suvs_stay_as_they_are_to_the_last_bit(tmp_path: Path) -> None:
    assert factors(made(tmp_path, Units="GML"))[0] == [1.0] * 6
    assert factors(made(tmp_path / "bw", Units="GML", SUVType="BW"))[0] == [1.0] * 6


@pytest.mark.parametrize(
    "spoilt",
    [
        {"Units": None},
        {"Units": "CNTS"},
        {"Units": "PROPCPS"},
        {"Units": "CM2ML"},
        {"Units": ["BQML", "BQML", "GML", "BQML", "BQML", "BQML"]},
        {"Units": "GML", "SUVType": "LBM"},
        {"Units": "GML", "RescaleSlope": ""},  # empty is as good as absent
        {"PatientWeight": None},
        {"PatientWeight": 0},
        {"PatientWeight": 70_000},
        {"CorrectedImage": ["DECY", "SCAT"]},
        {"CorrectedImage": ["ATTN"]},
        {"DecayCorrection": None},
        {"DecayCorrection": "NONE"},
        {"SeriesTime": None, "AcquisitionTime": None},
        {"drug": {"RadionuclideTotalDose": None}},
        {"drug": {"RadionuclideTotalDose": 370}},
        {"drug": {"RadionuclideTotalDose": 370e3}},
        {"drug": {"RadionuclideHalfLife": None}},
        {"drug": {"RadionuclideHalfLife": 109.77, "Radiopharmaceutical": "FDG"}},
        {"drug": {"Radiopharmaceutical": "Ga-68 PSMA-11"}},  # with the half-life of fluorine-18, as in a template
        {"drug": {"Radiopharmaceutical": "11C-methionine"}},
        {"drug": {"RadiopharmaceuticalStartTime": None}},
        {"drug": {"RadiopharmaceuticalStartTime": "110500"}},
        {"drug": {"RadiopharmaceuticalStartTime": "090000", "RadiopharmaceuticalStartDateTime": "20200102100000"}},
        {"drug": {"RadionuclideHalfLife": 282276.0}},  # zirconium-89: which day was it given?
    ],
)
def test_headers_that_do_not_suffice_are_a_problem_before_the_run(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    assert code(made(tmp_path, **spoilt)) is Code.PET_UNITS


@pytest.mark.parametrize(
    ("named", "half_life"),
    [("^68^Gallium", 4080.0), ("^11^Carbon", 1223.0), ("^64^Copper", 45720.0), ("^18^Fluorine", 6588.0), ("", 4000.0)],
)
def test_the_half_lives_of_other_nuclides_are_taken_as_written(tmp_path: Path, named: str, half_life: float) -> None:
    code = Dataset()
    code.CodeMeaning = named
    given = {"RadiopharmaceuticalStartDateTime": "20200102100000"}  # of copper-64 the day counts
    folder = made(tmp_path, {"RadionuclideHalfLife": half_life, "RadionuclideCodeSequence": [code], **given})
    assert factors(folder) == (all_are(WEIGHT * 1000 / (DOSE * 0.5 ** (3600 / half_life))), [])


def test_two_times_of_the_scan_that_matter_are_told(tmp_path: Path) -> None:
    found, [warning] = factors(made(tmp_path, SeriesTime="101000"))
    assert found == all_are(WEIGHT * 1000 / (DOSE * 0.5 ** (600 / F18)))
    assert warning.code is Code.IMAGE_UNITS
    assert "10:10:00" in warning.reason
    assert "11:00:00" in warning.reason


def test_the_reported_patients_in_two_units_have_their_right_suvs(shared_data: Path, tmp_path: Path) -> None:
    index_cohort([shared_data / "reported" / "B25_pet_units" / "in"], tmp_path, CohortSection())
    means = {}
    for case in read_cases(tmp_path / "cases.csv"):
        roi = load_roi(case, ImageSection())
        inside = sitk.GetArrayFromImage(roi.mask) == 1
        means[case.patient_id] = float(sitk.GetArrayFromImage(roi.image)[inside].mean())
    assert means == pytest.approx({"P1": 0.1063, "P2": 0.1923}, abs=5e-5)


def test_stored_values_are_read_as_before_where_the_job_says_so(tmp_path: Path) -> None:
    assert factors(made(tmp_path, Units="CNTS"), pet="stored")[0] == [1.0] * 6


def test_the_unit_stands_in_the_case_and_in_the_region(tmp_path: Path) -> None:
    case, _ = indexed(made(tmp_path))
    assert case.units == "BQML"
    assert load_roi(case, ImageSection()).unit == SUV
    assert load_roi(case, ImageSection(pet="stored")).unit == "Bq/mL"


def test_real_suvs_come_back_from_the_activities_that_they_stand_for(shared_data: Path, tmp_path: Path) -> None:
    """A real PET in SUVs, rewritten in Bq/mL by its own dose, weight and times, slice by slice, gives its SUVs."""
    source = shared_data / "sts" / "STS_041" / "PET" / "image"
    files = sorted(source.iterdir())
    expected = []
    (tmp_path / "pt").mkdir()
    for path in files:
        dataset = pydicom.dcmread(path)
        expected.append((float(dataset.ImagePositionPatient[2]), sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]))
        drug = dataset.RadiopharmaceuticalInformationSequence[0]
        injected = datetime.strptime("20060407" + drug.RadiopharmaceuticalStartTime, "%Y%m%d%H%M%S")
        scanned = datetime.strptime("20060407" + dataset.SeriesTime, "%Y%m%d%H%M%S")
        hours = (scanned - injected) / timedelta(hours=1)
        left = float(drug.RadionuclideTotalDose) * math.exp(-math.log(2) * hours * 3600 / drug.RadionuclideHalfLife)
        dataset.RescaleSlope = f"{float(dataset.RescaleSlope) * left / (dataset.PatientWeight * 1000):.10g}"
        dataset.Units, dataset.DecayCorrection = "BQML", "START"
        dataset.save_as(tmp_path / "pt" / path.name)
    mask = next((shared_data / "sts" / "STS_041" / "PET" / "mask").iterdir())
    index_cohort([tmp_path / "pt", mask], tmp_path / "out", CohortSection())
    case = read_cases(tmp_path / "out" / "cases.csv")[0]
    with collected_warnings() as warnings:
        found = sitk.GetArrayFromImage(load_image(case.image, ImageSection()))
    assert warnings == []
    for own, (_, wanted) in zip(found, sorted(expected, key=lambda pair: pair[0]), strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-9)


def test_the_sarcoma_patients_suvs_are_those_that_gdcm_reads(shared_data: Path, tmp_path: Path) -> None:
    index_cohort([shared_data / "sts" / "STS_008" / "PET"], tmp_path, CohortSection(modalities=("PT",)))
    case = read_cases(tmp_path / "cases.csv")[0]
    listing = read_listing(case.image)
    expected = sitk.ReadImage([str(Path(listing.root) / s.file) for s in listing.slices])
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(load_image(case.image, ImageSection())), sitk.GetArrayFromImage(expected)
    )
    assert case.units == "GML"


@pytest.mark.parametrize(
    ("name", "value", "unit", "told"),
    [("RescaleType", "MGML", "{MGML}", "not Hounsfield units"), ("RescaleSlope", "", "[hnsf'U]", "no RescaleSlope")],
)
def test_ct_that_is_no_hounsfield_units_is_told(tmp_path: Path, name: str, value: str, unit: str, told: str) -> None:
    folder = write_series(tmp_path / "ct", STORED, rescale=(1, -1024))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        setattr(dataset, name, value)
        dataset.save_as(path)
    square = np.array([[3.0, 3.0], [3.0, 7.0], [8.0, 7.0], [8.0, 3.0]])
    write_rtstruct(tmp_path / "rs.dcm", [np.column_stack([square, np.full(4, z)]) for z in (4.0, 6.0)])
    refer_to(tmp_path / "rs.dcm", folder)
    case, _ = indexed(tmp_path)
    with collected_warnings() as warnings:
        assert load_roi(case, ImageSection()).unit == unit
    assert [(warning.code, told in warning.reason) for warning in warnings] == [(Code.IMAGE_UNITS, True)]


def test_an_intercept_which_pet_has_not_is_told(tmp_path: Path) -> None:
    folder = made(tmp_path, Units="GML", SUVType="BW", RescaleIntercept=-5)
    case, problems = indexed(folder)
    [told] = [problem for problem in problems if problem.code is Code.IMAGE_UNITS]
    assert "RescaleIntercept is -5" in told.reason
    with collected_warnings() as warnings:
        values = sitk.GetArrayFromImage(load_image(case.image, ImageSection()))
    np.testing.assert_array_equal(values, STORED * 0.5 - 5)
    assert [warning.code for warning in warnings] == [Code.IMAGE_UNITS]


def test_suvs_that_no_body_has_are_told(tmp_path: Path) -> None:
    """Bq/mL under the unit of SUVs, which no check of the headers finds."""
    for scale, codes in ((1.0, []), (1e4, [Code.IMAGE_UNITS])):
        folder = made(tmp_path / f"{scale:g}", Units="GML", SUVType="BW", RescaleSlope=0.01 * scale)
        case, _ = indexed(folder)
        with collected_warnings() as warnings:
            load_roi(case, ImageSection())
        assert [warning.code for warning in warnings] == codes
