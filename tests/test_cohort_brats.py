"""BraTS' layout: regions of the map of labels, a case per sequence and region, joined by patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import read_cases
from prognosis_dask.cohort.clinical import ClinicalRow, ClinicalTable
from prognosis_dask.cohort.collections import COLLECTIONS
from prognosis_dask.cohort.index import index_cohort, leveled
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.imaging.load import load_roi

#: Label and number of voxels of each; the enhancing part is 4, in files of 2023 and later 3.
VOXELS = {1: 8, 4: 4, 2: 12}
REGIONS = {"whole tumour": 24, "core": 12, "enhancing": 4}


def write(path: Path, *, labels: bool = False, enhancing: int = 4) -> None:
    values = np.full(6 * 6 * 6, 0 if labels else 7, np.int16)
    start = 26  # so that each region of three lies on two slices
    for label, often in VOXELS.items() if labels else ():
        values[start : start + often] = enhancing if label == 4 else label
        start += often
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values.reshape(6, 6, 6)), str(path))


def ucsf(folder: Path, number: str) -> None:
    """The files of a patient of UCSF-PDGM, as far as they matter."""
    name = f"UCSF-PDGM-{number}"
    for kind in ("T1", "T1_bias", "T1gad", "T1gad_bias", "T2", "T2_bias", "FLAIR", "FLAIR_bias", "ADC", "SWI", "ASL"):
        write(folder / f"{name}_nifti" / f"{name}_{kind}.nii.gz")
    for kind in ("tumor", "brain", "brain_parenchyma"):
        write(folder / f"{name}_nifti" / f"{name}_{kind}_segmentation.nii.gz", labels=True)


def brats(folder: Path, name: str, enhancing: int = 4) -> None:
    for kind in ("t1n", "t1c", "t2w", "t2f"):
        write(folder / name / f"{name}-{kind}.nii.gz")
    write(folder / name / f"{name}-seg.nii.gz", labels=True, enhancing=enhancing)


def test_ucsf_pdgm_has_a_case_per_sequence_and_region_with_its_clinical_row(tmp_path):
    for number in ("0004", "0005"):
        ucsf(tmp_path / "in", number)
    (tmp_path / "table.csv").write_text(
        "ID,IDH,1p/19q,1-dead 0-alive,OS\n"
        "UCSF-PDGM-004,wildtype,unknown,1,1303\nUCSF-PDGM-005,IDH1 p.R132H,relative co-deletion,0,274\n",
        encoding="utf-8",
    )
    rules = CohortSection("ucsf_pdgm", clinical=str(tmp_path / "table.csv"))
    summary = index_cohort([tmp_path / "in"], tmp_path / "out", rules)
    cases = read_cases(tmp_path / "out" / "cases.csv")
    wanted = {f"{region} {sequence}" for region in REGIONS for sequence in ("T1", "T1c", "T2", "FLAIR")}
    for patient, idh in (("UCSF-PDGM-0004", "wildtype"), ("UCSF-PDGM-0005", "mutated")):
        own = [case for case in cases if case.patient_id == patient]
        assert {case.roi for case in own} == wanted
        assert len(own) == len(wanted)
        assert {case.covariates["IDH"] for case in own} == {idh}
        assert not any("bias" in case.image for case in own)
    assert any("IDH1 p.R132H" in note for note in summary.notes)
    assert any("'ucsf-pdgm-004' is 'ucsf-pdgm-0004'" in note for note in summary.notes)


@pytest.mark.parametrize(("name", "enhancing"), [("BraTS20_Training_001", 4), ("BraTS-GLI-00002-000", 3)])
def test_regions_are_brats_unions_whichever_label_enhances(tmp_path, name, enhancing):
    brats(tmp_path / "in", name, enhancing)
    index_cohort([tmp_path / "in"], tmp_path / "out", CohortSection("brats"))
    cases = {case.roi: case for case in read_cases(tmp_path / "out" / "cases.csv")}
    assert len(cases) == 12
    for region, often in REGIONS.items():
        case = cases[f"{region} T1c"]
        mask = load_roi(case, ImageSection(keep_gaps=True), full=True).mask
        assert np.count_nonzero(sitk.GetArrayViewFromImage(mask)) == often


def test_another_union_of_labels_is_a_rule(tmp_path):
    brats(tmp_path / "in", "BraTS20_Training_001", 4)
    index_cohort([tmp_path / "in"], tmp_path / "out", CohortSection("brats", roi=("oedema",)))
    assert {case.labels for case in read_cases(tmp_path / "out" / "cases.csv")} == {(2,)}


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("wildtype", "wildtype"),
        ("IDH-wild type", "wildtype"),
        ("WT", "wildtype"),
        ("mutated (NOS)", "mutated"),
        ("Mutant", "mutated"),
        ("IDH1 p.R132H", "mutated"),
        ("IDH2 p.Arg172Lys", "mutated"),
        ("R132C", "mutated"),
        ("not mutated", "not mutated"),
        ("unmutated", "unmutated"),
        ("IDH1 wildtype, IDH2 p.R172K", "IDH1 wildtype, IDH2 p.R172K"),
        ("unknown", "unknown"),
        ("IDH-WT", "wildtype"),
        ("not wildtype", "not wildtype"),
        ("R132H negative", "R132H negative"),
        ("IDH1 mutation absent", "IDH1 mutation absent"),
        ("mutation negative", "mutation negative"),
        ("Mutant?", "Mutant?"),
    ],
)
def test_what_idh_is_written_as_is_read_where_it_is_plain(text, level):
    row = ClinicalRow("a", covariates={"IDH": text})
    found = leveled(ClinicalTable({"a": row}, has_endpoint=False), COLLECTIONS["ucsf_pdgm"].levels)
    assert found.rows["a"].covariates == {"IDH": level}


def test_tcga_with_brats_masks_is_indexed_as_it_is_published(tmp_path):
    name = "TCGA-02-0006_1996.08.23"
    for kind in ("flair", "t1", "t1Gd", "t2"):
        write(tmp_path / "in" / "TCGA-02-0006" / f"{name}_{kind}.nii.gz")
    write(tmp_path / "in" / "TCGA-02-0006" / f"{name}_GlistrBoost_ManuallyCorrected.nii.gz", labels=True)
    (tmp_path / "table.csv").write_text("bcr_patient_barcode,IDH status\nTCGA-02-0006,Mutant\n", encoding="utf-8")
    index_cohort([tmp_path / "in"], tmp_path / "out", CohortSection("brats", clinical=str(tmp_path / "table.csv")))
    cases = read_cases(tmp_path / "out" / "cases.csv")
    assert {case.roi for case in cases} == {f"{r} {s}" for r in REGIONS for s in ("T1", "T1c", "T2", "FLAIR")}
    assert {case.covariates["IDH status"] for case in cases} == {"mutated"}


def test_a_map_with_both_labels_of_the_enhancing_part_is_refused_with_all_that_may_be_of_its_kind(tmp_path):
    # BraTS 2024: 3 enhances, 4 is the cavity. The second patient has a cavity alone, which would pass for enhancing
    for name, labels in (("BraTS-GLI-02062-100", (1, 2, 3, 4)), ("BraTS-GLI-02062-101", (2, 4)), ("P3", (1, 2))):
        brats(tmp_path / "in", name)
        values = np.zeros((6, 6, 6), np.int16)
        values[2:4, 2, : len(labels)] = labels
        sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "in" / name / f"{name}-seg.nii.gz"))
    index_cohort([tmp_path / "in"], tmp_path / "out", CohortSection("brats"))
    cases = read_cases(tmp_path / "out" / "cases.csv")
    assert {case.patient_id for case in cases} == {"P3"}
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8")
    assert "labels 3 and 4 are both in 1 map (BraTS-GLI-02062-100/" in problems
