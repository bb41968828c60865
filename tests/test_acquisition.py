"""What images were acquired with: from their headers into cases.csv, and never into a model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from scipy.stats import kruskal

from prognosis_dask.cohort.case import Case, read_cases, write_cases
from prognosis_dask.cohort.headers import ACQUISITION
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection
from prognosis_dask.report.sections.acquisition import Explained, explained

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
        "inversion_time_ms": "InversionTime",
        "scanning_sequence": "ScanningSequence",
        "image_type": "ImageType",
        "contrast_agent": "ContrastBolusAgent",
    }
    assert pydicom.datadict.keyword_for_tag(ACQUISITION[name]) == words[name]


def effects(n: int = 90, *, shift: float = 0.0, seed: int = 0) -> tuple[dict[str, Explained], list[str], pd.DataFrame]:
    """Made cases: kernel B70f moves a third of the features; makers alternate; three patients have another voltage."""
    rng = np.random.default_rng(seed)
    kernels = rng.permutation(["B30f"] * (n // 2) + ["B70f"] * (n - n // 2))
    values = rng.normal(size=(n, 30))
    values[:, :10] += shift * (kernels == "B70f")[:, np.newaxis]
    cases = [
        Case(f"c{i}", f"P{i}", "CT", "GTV", "i", "m", acquisition={
            "kernel": str(kernels[i]), "scanner_maker": ("A", "B")[i % 2], "kvp": "100" if i < 3 else "120",
            "slice_thickness_mm": "" if i < 5 else "3"})
        for i in range(n)
    ]  # fmt: skip
    table = pd.DataFrame(values, index=[case.case_id for case in cases])
    found, not_compared = explained(cases, table, {case.case_id: 1.0 + i % 7 for i, case in enumerate(cases)})
    return {one.parameter: one for one in found}, not_compared, table.assign(kernel=kernels)


def test_features_that_differ_by_kernel_are_told_from_chance_and_from_the_makers() -> None:
    found, not_compared, table = effects(shift=1.5)
    kernel, maker = found["reconstruction kernel"], found["manufacturer"]
    assert kernel.share > kernel.high > kernel.low
    assert kernel.p_holm < 0.05 < maker.p
    assert maker.share < maker.high
    statistics = [kruskal(*(part[name] for _, part in table.groupby("kernel"))).statistic for name in range(30)]
    assert kernel.share == pytest.approx(np.mean(statistics) / (len(table) - 1))  # outside witness
    assert not_compared == [
        "CT tube voltage (kV) (no two groups of 5 patients)",
        "CT slice thickness (mm) (one value)",
    ]


def test_groups_that_mean_nothing_rarely_pass_for_a_difference() -> None:
    """Forty cohorts without any: of 5 % two are expected, and more than seven come once in a thousand times."""
    below = sum(effects(40, seed=seed)[0]["reconstruction kernel"].p < 0.05 for seed in range(40))
    assert below <= 7
