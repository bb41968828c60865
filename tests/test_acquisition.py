"""What images were acquired with: from their headers into cases.csv, and never into a model."""

from pathlib import Path

import pydicom
import pytest

from prognosis_dask.cohort.case import Case, read_cases, write_cases
from prognosis_dask.cohort.headers import ACQUISITION
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection

LUNG = CohortSection(roi=("GTV-1",))


@pytest.mark.parametrize(
    ("folder", "modality", "expected"),
    [
        ("sts", "CT", {"scanner": "Discovery ST", "kvp": "120", "kernel": "STANDARD", "slice_thickness_mm": "3.27"}),
        ("qin_prostate", "MR", {"scanner": "Signa HDxt", "field_strength_t": "3", "repetition_time_ms": "3000",
                                "echo_time_ms": "81.2", "slice_thickness_mm": "3"}),
        ("lung1_002", "CT", {"scanner_maker": "CMS, Inc.", "scanner": "XiO", "slice_thickness_mm": "3"}),
    ],
)  # fmt: skip
def test_a_series_says_what_it_was_acquired_with(
    shared_data: Path, tmp_path: Path, folder: str, modality: str, expected: dict[str, str]
) -> None:
    index_cohort([shared_data / folder], tmp_path, CohortSection(modalities=(modality,)))
    cases = read_cases(tmp_path / "cases.csv")
    assert any(expected.items() <= case.acquisition.items() for case in cases)
    assert all(case.modality == modality and set(case.acquisition) <= set(ACQUISITION) for case in cases)


def test_values_that_differ_within_a_series_are_said_to_vary(shared_data: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted((shared_data / "lung1_002").rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        if dataset.Modality == "CT":
            dataset.KVP = 120 + 20 * (number % 2)
        dataset.save_as(tmp_path / path.name)
    index_cohort([tmp_path], tmp_path / "index", LUNG)
    (case,) = read_cases(tmp_path / "index" / "cases.csv")
    assert case.acquisition["kvp"] == "varies"
    assert case.acquisition["slice_thickness_mm"] == "3"


def test_the_acquisition_is_no_covariate_and_changes_no_digest(tmp_path: Path) -> None:
    bare = Case("a", "p", "MR", "mask", "/x/a.nii.gz", "/x/m.nii.gz", source="s", covariates={"age": "61"})
    told = Case(**{**vars(bare), "acquisition": {"field_strength_t": "3", "echo_time_ms": "80"}})
    write_cases(tmp_path / "cases.csv", [told])
    (read,) = read_cases(tmp_path / "cases.csv")
    assert read.acquisition == told.acquisition
    assert read.covariates == {"age": "61"}
    assert read.digest == bare.digest == told.digest


@pytest.mark.parametrize("name", ACQUISITION)
def test_the_elements_are_those_of_the_dicom_standard(name: str) -> None:
    words = {
        "scanner_maker": "Manufacturer",
        "scanner": "ManufacturerModelName",
        "kvp": "KVP",
        "kernel": "ConvolutionKernel",
        "slice_thickness_mm": "SliceThickness",
        "field_strength_t": "MagneticFieldStrength",
        "repetition_time_ms": "RepetitionTime",
        "echo_time_ms": "EchoTime",
    }
    assert pydicom.datadict.keyword_for_tag(ACQUISITION[name]) == words[name]
