"""``prognosis reproducibility``: which features agree, from runs and from tables, and what it says when they cannot."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import prognosis_dask
from prognosis_dask.cli.main import main
from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import StatisticsError
from prognosis_dask.features.dataset import build_features, write_features
from prognosis_dask.features.stage import Columns
from prognosis_dask.modelling.data.pairing import IdColumns, pair, read_measurement
from prognosis_dask.modelling.spec import load_spec
from prognosis_dask.modelling.validation.reproducibility import agreement_rows, family_rows, read_reproducible
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.workflows.reproducibility import agreement_violins

PATIENTS = 31
RADIOMIC = {f"original_glcm_Feature{i}": "1" for i in range(20)}
DEEP = tuple(f"logit_{i:03d}" for i in range(40))
#: Standard deviation of a measurement's error, in those of the patients: the coefficients' truth is 1 / (1 + noise²).
NOISE = {"radiomics": 0.2, "deep": 0.8}


def write_run(folder: Path, series: Sequence[str], seed: int = 0) -> Path:
    """A run of patients with the named ROIs, one case each; P000 failed in the last of them."""
    rng, truth = np.random.default_rng(seed), np.random.default_rng(99)
    names = [f"P{i:03d}" for i in range(PATIENTS)]
    cases = [Case(f"{name}_CT_{roi}", name, "CT", roi, "image", "mask") for name in names for roi in series]
    outcomes: dict[str, dict[str, TaskResult]] = {"roi": {}, "radiomics": {}, "deep": {}}
    patient = {name: {"radiomics": truth.normal(size=20), "deep": truth.normal(size=40)} for name in names}
    for case in cases:
        size = {"voxels": 10, "volume_ml": 1.0 + names.index(case.patient_id), "n_slices": 3, "lesion_cut": False}
        outcomes["roi"][case.case_id] = TaskResult(case.case_id, "roi", "d", None, {}, size)
        if (case.patient_id, case.roi) == ("P000", series[-1]):
            continue
        for stage, values in patient[case.patient_id].items():
            found = values + NOISE[stage] * rng.normal(size=len(values))
            outcomes[stage][case.case_id] = TaskResult(case.case_id, stage, "d", None, {}, {"values": found.tolist()})
    dataset = build_features(
        cases, {"radiomics": Columns(RADIOMIC), "deep": Columns(dict.fromkeys(DEEP, "1"))}, outcomes
    )
    write_features(dataset, folder)
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), ("GTVp_test_man", "GTVp_retest_man"))


def test_test_and_retest_in_one_run_give_the_agreement_that_their_noise_leaves(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["reproducibility", str(both), "-o", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "agreement.csv").set_index("feature")
    assert len(table) == 61
    assert table.loc["logit_000", "n"] == PATIENTS - 1  # P000's retest failed
    assert table.loc["volume_ml", ["n", "ccc"]].tolist() == [PATIENTS, 1.0]
    for family, noise in NOISE.items():
        rows = table[table["family"] == family]
        for coefficient in ("ccc", "icc_1_1", "icc_2_1", "icc_3_1"):
            assert rows[coefficient].mean() == pytest.approx(1 / (1 + noise**2), abs=0.06)
            held = (rows[f"{coefficient}_lower"] < 1 / (1 + noise**2)) & (
                1 / (1 + noise**2) < rows[f"{coefficient}_upper"]
            )
            assert held.mean() > 0.8
    families = pd.read_csv(tmp_path / "out" / "families.csv").set_index("family")
    assert families.loc["radiomics", "share"] == 1.0
    assert families.loc["deep", "share"] < 0.1
    kept = read_reproducible(tmp_path / "out" / "reproducible.csv")
    assert set(kept) == set(table.index[table["ccc"] >= 0.85])
    assert (tmp_path / "out" / "violin.svg").read_text().startswith("<?xml")
    assert "31 pairs by patient, two series each" in capsys.readouterr().out


def test_two_runs_are_paired_by_patient_where_regions_have_other_names(both: Path, tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", ("GTVp_test_man",), seed=1)
    second = write_run(tmp_path / "b", ("GTVp_retest_man",), seed=2)
    found = prognosis_dask.reproducibility(first, second)
    assert (found.pairs, found.by, found.left_out) == (PATIENTS, "patient", ())
    copied = shutil.copytree(both, tmp_path / "copied")
    again = prognosis_dask.reproducibility(both, copied)  # the same run twice: case by case, all equal
    assert again.by == "case"
    assert {row["ccc"] for row in again.agreement} == {1.0}


def test_a_run_s_csv_and_any_table_are_read_like_the_run(both: Path, tmp_path: Path) -> None:
    run, table = read_measurement(both), read_measurement(both / "features.csv")
    assert table.features == run.features
    assert table.families == run.families
    np.testing.assert_allclose(table.X, run.X, rtol=1e-6)  # deep features have seven digits
    others = pd.DataFrame(
        {"Patient": ["p1 ", "P2", "P3", "P4"], "x;1": ["1,5", "2,5", "3", "n/a"], "sex": list("mfmf")}
    )
    others["survival_time"] = [1, 2, 3, 4]
    others.to_csv(tmp_path / "theirs.csv", sep=";", index=False)
    theirs = read_measurement(tmp_path / "theirs.csv")
    assert theirs.features == ("x;1",)
    assert theirs.ignored == ("sex", "survival_time")
    np.testing.assert_array_equal(theirs.X[:, 0], [1.5, 2.5, 3.0, np.nan])


def test_patients_without_a_partner_are_named_and_the_rest_compared(both: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(write_run(tmp_path / "a", ("test",), seed=1) / "features.csv")
    frame.iloc[2:].to_csv(tmp_path / "fewer.csv", index=False)
    found = prognosis_dask.reproducibility(tmp_path / "a", tmp_path / "fewer.csv")
    assert found.pairs == PATIENTS - 2
    assert found.left_out == ("P000_CT_test", "P001_CT_test")


def test_constant_and_empty_features_are_undetermined_and_not_reproducible(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"patient_id": list("abcd"), "x": [1, 2, 3, 4], "constant": 5.0, "few": [1.0, 2.0, None, None]}
    )
    for name in ("first.csv", "second.csv"):
        frame.to_csv(tmp_path / name, index=False)
    found = prognosis_dask.reproducibility(tmp_path / "first.csv", tmp_path / "second.csv", tmp_path / "out")
    assert found.reproducible == ("x",)
    with (tmp_path / "out" / "agreement.csv").open() as stream:
        assert [(row["feature"], row["n"], row["ccc"]) for row in csv.DictReader(stream)] == [
            ("x", "4", "1.0"),
            ("constant", "4", ""),
            ("few", "2", ""),
        ]
    assert found.families[0]["determined"] == 1


def test_two_modalities_of_one_run_are_compared_where_patients_have_three(tmp_path: Path) -> None:
    rows = [(p, m, x + {"CT": 0, "MR": 1, "PT": 9}[m]) for x, p in enumerate("abcd") for m in ("CT", "MR", "PT")]
    frame = pd.DataFrame(rows, columns=["patient_id", "modality", "x"]).assign(roi="GTV")
    frame.to_csv(tmp_path / "run.csv", index=False)
    found = prognosis_dask.reproducibility(tmp_path / "run.csv", modalities=("CT", "mr"))
    assert (found.pairs, found.by) == (4, "patient")
    s2, shift = 1.25, 1.0
    assert found.agreement[0]["ccc"] == pytest.approx(2 * s2 / (2 * s2 + shift**2))
    with pytest.raises(StatisticsError, match="no case is of modality US; the cases are of: CT, MR, PT"):
        prognosis_dask.reproducibility(tmp_path / "run.csv", modalities=("CT", "US"))
    with pytest.raises(StatisticsError, match="--modalities CT: expected two of them"):
        prognosis_dask.reproducibility(tmp_path / "run.csv", modalities=("CT",))


def test_two_lesions_on_one_scan_are_no_test_and_retest(tmp_path: Path) -> None:
    rows = [(p, roi, x + 0.1 * y) for x, p in enumerate("abcd") for y, roi in enumerate(("GTV-1", "GTV-2"))]
    pd.DataFrame(rows, columns=["patient_id", "roi", "x"]).to_csv(tmp_path / "lesions.csv", index=False)
    with pytest.raises(StatisticsError, match="0 of 4 patients have two series of the same region"):
        prognosis_dask.reproducibility(tmp_path / "lesions.csv")
    copied = shutil.copy(tmp_path / "lesions.csv", tmp_path / "copied.csv")
    found = prognosis_dask.reproducibility(tmp_path / "lesions.csv", copied)
    assert (found.pairs, found.by) == (8, "patient and region of interest")


def regions_table(patients: int = 60) -> pd.DataFrame:
    """Two runs of four regions whose means lie far apart; within each the truth is ICC = 0.5."""
    rng, rows = np.random.default_rng(0), []
    for number in range(patients):
        for region, mean in zip("abcd", (0, 10, 20, 30), strict=True):
            value = mean + rng.normal()
            rows += [(f"P{number}", region, run, value + rng.normal()) for run in ("first", "second")]
    return pd.DataFrame(rows, columns=["Subject No", "structure", "scan", "x"])


def test_regions_are_compared_each_by_itself_and_pooled_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regions_table().to_csv(tmp_path / "t.csv", index=False)
    columns = ["--columns", "patient=Subject No,roi=structure,run=scan"]
    main(["reproducibility", str(tmp_path / "t.csv"), *columns, "-o", str(tmp_path / "each")])
    each = pd.read_csv(tmp_path / "each" / "agreement.csv")
    assert each["roi"].tolist() == list("abcd")
    assert each["n"].tolist() == [60] * 4
    assert each["icc_1_1"].between(0.2, 0.75).all()
    assert "Each region by itself" in capsys.readouterr().out
    main(["reproducibility", str(tmp_path / "t.csv"), *columns, "--pooled", "-o", str(tmp_path / "pooled")])
    (row,) = pd.read_csv(tmp_path / "pooled" / "agreement.csv").to_dict("records")
    assert row["n"] == 240
    assert row["icc_1_1"] == pytest.approx(0.5, abs=0.12)
    assert row["icc_1_1_lower"] < 0.5 < row["icc_1_1_upper"]


def test_columns_that_a_table_lacks_and_more_than_two_runs_are_refused(tmp_path: Path) -> None:
    frame = regions_table(4)
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(StatisticsError, match=r"no column 'visit' .run.; it has Subject No, structure, scan, x"):
        prognosis_dask.reproducibility(tmp_path / "t.csv", columns=IdColumns(patient="Subject No", run="visit"))
    frame.loc[0, "scan"] = "third"
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(StatisticsError, match=r"names 3 runs .first, second, third., expected two"):
        prognosis_dask.reproducibility(tmp_path / "t.csv", columns=IdColumns(patient="Subject No", run="scan"))


def test_a_patient_with_two_rows_on_one_side_is_left_out_and_not_guessed(tmp_path: Path) -> None:
    first = pd.DataFrame({"case_id": list("vwxyz"), "patient_id": list("aabcd"), "x": range(5), "roi": ""})
    second = pd.DataFrame({"case_id": list("klmn"), "patient_id": list("abcd"), "x": range(4), "roi": ""})
    first.to_csv(tmp_path / "first.csv", index=False)
    second.to_csv(tmp_path / "second.csv", index=False)
    found = prognosis_dask.reproducibility(tmp_path / "first.csv", tmp_path / "second.csv")
    assert (found.pairs, found.left_out) == (3, ("v", "w", "k"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.csv", "ok.csv"], "nothing at absent.csv"),
        (["nobody.csv", "ok.csv"], "no column patient_id; it has x, y"),
        (["ok.csv"], "0 of 4 patients have two series"),
        (["ok.csv", "strangers.csv"], "cannot be paired"),
        (["ok.csv", "other.csv"], "no feature in common: x in the first, z in the second"),
        (["ok.csv", "ok.csv", "--threshold", "85"], "the threshold is 85"),
        (["picture.xlsx", "ok.csv"], "cannot be read"),
        (["ok.csv", "./ok.csv"], "ok.csv would be compared with itself"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "ok.csv": "patient_id,x\na,1\nb,2\nc,3\nd,5\n",
        "nobody.csv": "x,y\n1,2\n",
        "strangers.csv": "patient_id,x\nk,1\nl,2\nm,3\n",
        "other.csv": "patient_id,z\na,1\nb,2\nc,3\n",
        "picture.xlsx": "not a workbook",
    }.items():
        (tmp_path / name).write_text(text)
    assert message in refused("reproducibility", *arguments)


def test_a_list_of_features_is_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("feature,ccc\na,0.9\nb,0.95\n")
    assert read_reproducible(tmp_path / "list.csv") == ("a", "b")
    (tmp_path / "wrong.csv").write_text("name\na\n")
    (tmp_path / "empty.csv").write_text("feature\n")
    for name, message in (
        ("wrong.csv", "no column 'feature'"),
        ("absent.csv", "no list of features"),
        ("empty.csv", "lists no feature"),
    ):
        with pytest.raises(StatisticsError, match=message):
            read_reproducible(tmp_path / name)


def test_a_specification_s_procedure_reads_the_list_that_the_command_writes(both: Path, tmp_path: Path) -> None:
    found = prognosis_dask.reproducibility(both, out=tmp_path / "agreement", threshold=0.9)
    (tmp_path / "spec.toml").write_text('[procedure.stable]\nreproducible = ["agreement/reproducible.csv"]\n')
    assert load_spec(tmp_path / "spec.toml").procedure["stable"].reproducible == found.reproducible
    with pytest.raises(StatisticsError, match="no list of features"):
        load_spec(tmp_path / "spec.toml", ['procedure.stable.reproducible=["absent.csv"]'])


def test_a_family_s_share_counts_the_features_that_reach_the_threshold(both: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", ("GTVp_test_man", "GTVp_retest_man"), seed=5)
    rows = agreement_rows(pair(read_measurement(both), read_measurement(other)))
    for threshold in (0.3, 0.6, 0.9):
        for row in family_rows(rows, threshold):
            held = [one["ccc"] for one in rows if one["family"] == row["family"]]
            assert row["share"] == sum(value >= threshold for value in held) / len(held)
            assert row["median_ccc"] == pytest.approx(np.median(held))


def test_the_violins_are_the_same_bytes_for_the_same_values_and_draw_what_there_is() -> None:
    rng = np.random.default_rng(0)
    values = {"radiomics": rng.uniform(0.5, 1, 30), "deep": np.array([0.2, np.nan, 0.4]), "volume": np.array([np.nan])}
    drawing = agreement_violins(values, 0.85)
    assert drawing == agreement_violins(values, 0.85)
    assert drawing != agreement_violins({**values, "deep": np.array([0.2, np.nan, 0.5])}, 0.85)
    for text in (drawing, agreement_violins({"volume": np.array([np.nan])}, 0.85)):
        assert ElementTree.fromstring(text).tag.endswith("svg")
