"""What a notebook does: names at the Tab key, files and tables in memory, one line for what is of the wrong type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

import prognosis_dask
from prognosis_dask.config.job import CohortSection, DeepSection, Job, ModelSection, SynthSection
from prognosis_dask.errors import PrognosisError
from prognosis_dask.workflows.run import RunResult

FEW = ["validation.repeats=1", "validation.folds=2", "validation.halves=0"]


def table(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    risk, age = rng.normal(size=n), rng.normal(60, 9, n)
    time = rng.exponential(300 * np.exp(-risk)).round(1) + 1
    return pd.DataFrame({"time_days": time, "event": np.arange(n) % 4 > 0, "risk": risk, "age": age}).set_index(
        pd.Index([f"P{i}" for i in range(n)], name="PatientID")
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("run")
    job = Job(
        "small",
        cohort=CohortSection(roi=("GTV-1",), roi_policy="first"),
        synth=SynthSection(patients=2),
        deep=DeepSection(enabled=False),
        model=ModelSection(enabled=False, features="radiomics"),
    )
    said: list[str] = []
    result = prognosis_dask.run(job, client="local", out=folder / "run", say=said.append)
    told = "\n".join(said)
    assert "/prognosis\n" in told  # the page of runs, not Dask's first one
    assert "left out: " in told
    assert "1 mask-outside, 1 mask-without-series, " in told, "the planted faults by their codes"
    assert "No model: model.enabled is false" in told
    return result


def test_the_names_are_there_at_the_tab_key() -> None:
    assert dir(prognosis_dask) == sorted(prognosis_dask.__all__)
    assert all(getattr(prognosis_dask, name) for name in prognosis_dask.__all__)


def test_a_run_gives_its_features_and_images_to_xarray(result: RunResult) -> None:
    features = result.features
    assert features.equals(prognosis_dask.read_features(result.folder))
    done = features["case"].values[np.isfinite(features["radiomics"].values).any(axis=1)]
    images = prognosis_dask.read_images(result.folder, str(done[0]))
    [case] = [case for case in prognosis_dask.read_cases(result.folder / "cases.csv") if case.case_id == done[0]]
    image, mask = prognosis_dask.load_case(case)
    voxel = np.prod(image.GetSpacing())
    steps = [float(images[axis][1] - images[axis][0]) for axis in "xyz"]
    assert np.prod(steps) == pytest.approx(voxel)
    assert images["image"].attrs["units"] == "[hnsf'U]", "Hounsfield units, as the dataset's image_units says"
    assert int(images["mask"].sum()) == np.count_nonzero(sitk.GetArrayViewFromImage(mask))
    assert images["frames"].sizes == {
        "slice": int((images["mask"].sum(("x", "y")) > 0).sum()),
        "row": 128,
        "column": 128,
    }


def test_a_table_in_memory_is_its_csv_file(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "DataFrame.csv")
    silent = {"overrides": FEW, "say": lambda line: None}
    prognosis_dask.fit(table(), out=tmp_path / "memory", **silent)
    prognosis_dask.fit(tmp_path / "DataFrame.csv", out=tmp_path / "file", **silent)
    measures = [(tmp_path / name / "models" / "measures.csv").read_text() for name in ("memory", "file")]
    assert measures[0] == measures[1]
    new = table().drop(columns=["time_days", "event"]).reset_index()
    found = prognosis_dask.predict(tmp_path / "memory", new, say=lambda line: None)
    assert found["patient_id"].tolist() == new["PatientID"].tolist()
    again = prognosis_dask.predict(tmp_path / "file", tmp_path / "DataFrame.csv", say=lambda line: None)
    assert found["risk_score"].tolist() == again["risk_score"].tolist()


def test_an_index_of_names_without_a_name_holds_the_patients(tmp_path: Path) -> None:
    unnamed, said = table().rename_axis(None), list[str]()
    prognosis_dask.fit(unnamed, out=tmp_path, overrides=FEW, say=said.append)
    assert any("The first column has no heading and was taken as the patients' ID" in line for line in said)
    found = prognosis_dask.predict(tmp_path, unnamed.drop(columns=["time_days", "event"]), say=str)
    assert found["patient_id"].tolist() == unnamed.index.tolist()
    twice = pd.concat([unnamed, unnamed])  # two scans of a patient are not two patients
    with pytest.raises(PrognosisError, match="patient 'P0' stands in data rows 1 and 61"):
        prognosis_dask.fit(twice, out=tmp_path, overrides=FEW, say=str)


def test_what_is_of_another_type_is_said_in_a_line(tmp_path: Path) -> None:
    for wrong in (
        lambda: prognosis_dask.run(3),
        lambda: prognosis_dask.load_job(None),
        lambda: prognosis_dask.load_job("j.toml", {"deep.enabled": False}),
        lambda: prognosis_dask.run(Job("x", synth=SynthSection(patients=1)), out=3),
        lambda: prognosis_dask.extract_features(np.zeros((3, 3, 3)), "mask.nrrd"),
        lambda: prognosis_dask.load_case("LUNG1-002"),
        lambda: prognosis_dask.show_case(None, None),
        lambda: prognosis_dask.predict(None, table()),
        lambda: prognosis_dask.reproducibility(table(), table()),
        lambda: prognosis_dask.fit(table(), {"endpoint": {}}, tmp_path / "x"),
        lambda: prognosis_dask.fit(3, out=tmp_path / "x"),
        lambda: prognosis_dask.fit([table(), 3], out=tmp_path / "x"),
        lambda: prognosis_dask.fit(table(), out=tmp_path / "x", client=3, overrides=FEW, say=lambda line: None),
        lambda: prognosis_dask.fit(table(), out=tmp_path / "x", client="tcp:/x", say=lambda line: None),
    ):
        with pytest.raises(PrognosisError) as refused:
            wrong()  # type: ignore[no-untyped-call]
        assert len(str(refused.value).splitlines()) == 1
