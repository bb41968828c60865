"""Fit, compare, validate and predict: as commands and as Python calls, on tables that a researcher may bring."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from lifelines.utils import concordance_index

import prognosis_dask
from prognosis_dask.cli import main as cli
from prognosis_dask.errors import JobError, StatisticsError
from tests.test_fit_models import SECTION, dataset

SPEC = """
final = "images"
validation = { folds = 3, repeats = 2, halves = 0, draws = 5 }
[procedure.volume]
families = ["volume"]
selector = ""
[procedure.images]
families = ["radiomics"]
n_features = [2]
penalty = [0.1]
"""


def cohort(folder: Path, name: str, n: int, seed: int) -> Path:
    """A table of radiomics of which one carries the survival."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    death, lost = 700 * rng.exponential(size=n) * np.exp(-1.3 * X[:, 2]) + 1, rng.uniform(300, 2500, n)
    table = {
        "PatientID": [f"{name}-{i:03d}" for i in range(n)],
        **{f"original_glcm_F{j}": X[:, j] for j in range(5)},
        "volume_ml": np.exp(rng.normal(3, 1, n)),
        "Overall.Stage": rng.choice(["I", "II", "IIIa"], n),
        "time_days": np.minimum(death, lost),
        "event": (death <= lost).astype(int),
    }
    pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "spec.toml").write_text(SPEC)
    cohort(folder, "first", 70, 0)
    cohort(folder, "second", 60, 1)
    prognosis_dask.fit(folder / "first.csv", folder / "spec.toml", folder / "out", say=lambda _: None)
    return folder


def run(*arguments: object) -> None:
    cli.main([str(argument) for argument in arguments])


def test_fit_writes_a_model_and_its_report(folder: Path) -> None:
    models = folder / "out" / "models"
    assert {"model.json", "arrays.npz", "measures.csv", "differences.csv", "summary.json"} <= {
        path.name for path in models.iterdir()
    }
    summary = json.loads((models / "summary.json").read_text())
    assert (summary["procedure"], summary["n_cases"]) == ("images", 70)
    assert summary["c_index_cv"] > 0.65
    assert "images" in (folder / "out" / "report.html").read_text()


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_as_none(folder: Path, tmp_path: Path) -> None:
    anywhere = "127.0.0.1:0"  # None would take port 8787, and warn where somebody has it
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=anywhere) as cluster,
        Client(cluster) as client,
    ):
        prognosis_dask.fit(folder / "first.csv", folder / "spec.toml", tmp_path, client=client, say=lambda _: None)
    for path in (folder / "out" / "models").iterdir():
        assert (tmp_path / "models" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_model_predicts_and_is_validated_on_another_cohort(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("predict", folder / "out", folder / "second.csv", "-o", tmp_path / "p.csv")
    predicted, cohort = pd.read_csv(tmp_path / "p.csv"), pd.read_csv(folder / "second.csv")
    assert list(predicted["case_id"]) == list(cohort["PatientID"])
    theirs = concordance_index(cohort["time_days"], -predicted["risk_score"], cohort["event"])
    found = prognosis_dask.validate(folder / "second.csv", model=folder / "out", out=tmp_path / "external")
    assert found.summary["c_index_cv"] == pytest.approx(theirs)
    assert theirs > 0.7
    assert "calibration.csv" in {path.name for path in (tmp_path / "external" / "models").iterdir()}
    assert "are of those that the model was fitted on" not in capsys.readouterr().out
    run("validate", folder / "out", folder / "second.csv")
    assert f"{theirs:.3f} (" in capsys.readouterr().out
    run("validate", folder / "out", folder / "first.csv")
    first = pd.read_csv(folder / "first.csv")
    said = f"The model was fitted on {len(first)} of these {len(first)} cases: known by their continuous features."
    assert said in capsys.readouterr().out


def test_a_table_without_an_endpoint_is_predicted_and_not_validated(folder: Path, tmp_path: Path) -> None:
    bare = pd.read_csv(folder / "second.csv").drop(columns=["time_days", "event"])
    bare.to_csv(tmp_path / "bare.csv", index=False)
    rows = prognosis_dask.predict(folder / "out", tmp_path / "bare.csv", say=lambda _: None)
    assert len(rows) == 60
    for unknown in ([3], slice(None)):  # of some patients, and of all
        part = pd.read_csv(folder / "second.csv").astype({"time_days": float, "event": float})
        part.loc[unknown, ["time_days", "event"]] = float("nan")
        part.to_csv(tmp_path / "part.csv", index=False)
        again = prognosis_dask.predict(folder / "out", tmp_path / "part.csv", say=lambda _: None)
        assert list(again["risk_score"]) == list(rows["risk_score"])
    with pytest.raises(StatisticsError, match="no endpoint to validate on"):
        prognosis_dask.validate(tmp_path / "bare.csv", model=folder / "out", say=lambda _: None)


def test_compare_tests_procedures_on_the_same_folds(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = prognosis_dask.compare(folder / "first.csv", folder / "spec.toml", tmp_path, say=lambda _: None)
    folds = pd.DataFrame(found.tables["predictions"]).pivot_table(
        index=["repeat", "case_id"], columns="procedure", values="fold"
    )
    assert (folds["volume"] == folds["images"]).all()
    (difference,) = [row for row in found.tables["differences"] if row["measure"] == "harrell_c"]
    means = pd.DataFrame(found.tables["folds"]).groupby("procedure")["c_index"].mean()
    assert difference["difference"] == pytest.approx(means[difference["a"]] - means[difference["b"]])
    assert not (tmp_path / "models" / "model.json").exists()
    with pytest.raises(StatisticsError, match="no procedure is called 'deep'; there are volume, images"):
        prognosis_dask.compare(folder / "first.csv", folder / "spec.toml", procedures=["deep"], say=lambda _: None)
    with pytest.raises(StatisticsError, match="holds a model, which would be lost"):
        prognosis_dask.compare(folder / "first.csv", folder / "spec.toml", folder / "out", say=lambda _: None)


@pytest.mark.parametrize(("method", "column"), [("bootstrap", "point632_plus"), ("permutation", "p")])
def test_validation_has_other_ways(method: str, column: str, folder: Path) -> None:
    override = [f"validation.method={method}"]
    found = prognosis_dask.validate(folder / "first.csv", folder / "spec.toml", overrides=override, say=lambda _: None)
    rows = {row["procedure"]: row for row in found.tables[method]}
    assert set(rows) == {"volume", "images"}
    assert all(0 < row[column] <= 1 for row in rows.values())
    if method == "bootstrap":
        assert all(row[f"{column}_lower"] < row[column] < row[f"{column}_upper"] for row in rows.values())


def test_without_a_specification_every_family_is_compared_and_all_of_them(folder: Path, tmp_path: Path) -> None:
    found = prognosis_dask.compare(
        folder / "first.csv",
        overrides=["validation.repeats=1", "validation.folds=2", "validation.halves=0"],
        say=lambda _: None,
    )
    procedures = list(dict.fromkeys(row["procedure"] for row in found.tables["folds"]))
    assert procedures == ["volume", "stage", "stage and volume", "radiomics", "all"]


def test_a_run_is_fitted_from_its_folder_and_its_parameters_must_agree(tmp_path: Path) -> None:
    from prognosis_dask.modelling.fit import fit_dataset
    from prognosis_dask.modelling.saved import load_frozen

    fit_dataset(dataset(), SECTION, tmp_path / "models")
    assert dict(load_frozen(tmp_path).fitted.source) == {"deep.network": "untrained"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="original_glcm_F2"), "that the model takes: original_glcm_F2"),
        (
            lambda t: t.assign(original_glcm_F2="high"),
            "column 'original_glcm_F2' holds 'high' in data row 1 and 59 more",
        ),
        (lambda t: pd.concat([t, t.head(1)]), "patient 'second-000' stands in data rows 1 and 61"),
        (lambda t: t.rename(columns={"PatientID": "patient_no"}).assign(subject_no=1), "no column of patients' IDs"),
    ],
)
def test_a_table_that_a_model_cannot_take_is_refused(change, message: str, folder: Path, tmp_path: Path) -> None:
    change(pd.read_csv(folder / "second.csv")).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(StatisticsError, match=message):
        prognosis_dask.predict(folder / "out", tmp_path / "t.csv", say=lambda _: None)


def test_features_of_other_parameters_are_refused_naming_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(SPEC + '[source]\n"radiomics.parameters" = "A"\n')
    prognosis_dask.fit(folder / "first.csv", tmp_path / "spec.toml", tmp_path, say=lambda _: None)
    (tmp_path / "other.toml").write_text('[source]\n"radiomics.parameters" = "B"\n')
    message = rf"second\.csv .* other radiomics parameters \(B\) than those of the model in {tmp_path} \(A\)"
    with pytest.raises(StatisticsError, match=message):
        prognosis_dask.predict(tmp_path, folder / "second.csv", spec=tmp_path / "other.toml", say=lambda _: None)
    said: list[str] = []
    prognosis_dask.predict(tmp_path, folder / "second.csv", say=said.append)
    assert any("does not say with which radiomics parameters" in line for line in said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.csv", "-o", "x"], "no table at nowhere.csv"),
        (["fit", "{first}", "-o", "{first}/x"], "(Not a directory); choose another folder with --out"),
        (["compare", "{first}", "-o", "{first}/x"], "(Not a directory); choose another folder with --out"),
        (["validate", "{first}", "-o", "{first}/x"], "(Not a directory); choose another folder with --out"),
        (["predict", "{out}", "{first}", "-o", "{first}/x.csv"], "(Not a directory); choose another folder with --out"),
        (["predict", "{out}", "{first}", "-o", "{folder}"], "expected a CSV file to write: -o"),
        (["predict", "{out}", "scan.nii.gz", "-o", "{folder}"], "holds something else, which would be lost"),
        (["predict", "{out}", "scan.nii.gz", "-o", "{first}"], "(Not a directory); choose another folder with --out"),
        (["reproducibility", "{first}", "-o", "{first}/x"], "(Not a directory); choose another folder with --out"),
        (["bench", "{folder}", "--out", "{first}/x"], "(Not a directory); choose another folder with --out"),
        (["fit", "{first}"], "where to? Give a folder with -o DIR"),
        (["fit", "{first}", "--spec", "none.toml", "-o", "x"], "no specification at none.toml"),
        (["fit", "{first}", "--set", "validation.fold=3", "-o", "x"], "did you mean validation.folds?"),
        (["fit", "{first}", "--set", "validation.folds=400", "-o", "x"], "patients with the event"),
        (["predict", "{folder}", "{first}", "-o", "x.csv"], "holds no model.json"),
        (["predict", "nowhere", "{first}", "-o", "x.csv"], "no folder at nowhere"),
        (["predict", "{out}", "nowhere", "-o", "x.csv"], "no file or folder at nowhere"),
        (["predict", "{out}", "{first}", "-o", "x.csv", "--dicom"], "or a run; --dicom is for one new scan: omit it"),
        (["predict", "{out}", "{first}", "-o", "x.csv", "--mask", "m.nrrd"], "; --mask is for one new scan: omit it"),
        (["validate", "{out}", "nowhere.csv"], "no table at nowhere.csv"),
        (["compare", "{folder}"], "holds no features.zarr"),
    ],
)
def test_a_mistake_is_answered_in_a_line_or_two(
    arguments: Sequence[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"first": folder / "first.csv", "folder": folder, "out": folder / "out"}
    said = refused(*(argument.format(**names) for argument in arguments))
    assert message in said
    assert len(said.splitlines()) <= 2
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.slow
def test_the_command_finds_its_workers_and_prints_the_report(folder: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "prognosis_dask", "fit", folder / "first.csv", "--spec", folder / "spec.toml",
         "--set", "validation.repeats=1", "--set", "validation.halves=0", "-o", tmp_path / "out"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    assert "Traceback" not in result.stderr


def test_an_example_specification_that_is_there_is_sound() -> None:
    from prognosis_dask.modelling.spec import load_spec

    examples = sorted((Path(__file__).parents[1] / "jobs" / "models").glob("*.toml"))
    assert examples
    for path in examples:
        assert load_spec(path).procedure
    with pytest.raises(JobError, match="examples are in jobs/models/"):
        load_spec("nowhere.toml")
