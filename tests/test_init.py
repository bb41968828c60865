"""The job that `prognosis init` writes: what a folder holds, and a run of it as it stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prognosis_dask.cli.main import main
from prognosis_dask.config.job import SynthSection, load_job
from prognosis_dask.features.dataset import read_features
from prognosis_dask.synthetic import make_cohort


@pytest.mark.slow
def test_the_job_of_a_synthetic_cohort_runs_to_a_model_as_it_stands(tmp_path: Path) -> None:
    made = make_cohort(tmp_path / "cohort", SynthSection(patients=16, bad_cases=False))
    main(["init", str(made.images), "-o", str(tmp_path)])
    path = tmp_path / f"{made.images.name}.toml"
    cohort = load_job(path).cohort
    assert (cohort.roi, cohort.modalities) == (("GTV-1", "Neoplasm, Primary"), ("CT",))
    assert (cohort.clinical, cohort.id_column) == (str(made.clinical), "PatientID")
    assert (cohort.time_column, cohort.event_column, cohort.time_unit) == ("time_days", "event", "days")
    main(["run", str(path), "--out", str(tmp_path / "run"), "--set", "model.folds=2", "--set", "model.repeats=1"])
    assert (tmp_path / "run" / "models" / "model.json").is_file()


def test_the_job_of_one_real_patient_runs_as_it_stands(
    shared_data: Path, tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", str(shared_data / "lung1_002"), "-o", str(tmp_path)])
    path = tmp_path / "lung1_002.toml"
    assert "no outcome is known yet" in path.read_text()
    assert "exists and is kept" in refused("init", shared_data / "lung1_002", "-o", tmp_path)
    assert "expected a folder; the job is written in it" in refused("init", shared_data / "lung1_002", "-o", "a.toml")
    assert "is a file, expected the folder of the images" in refused("init", path)
    main(["run", str(path), "--out", str(tmp_path / "run")])
    assert "no effect" not in "".join(capsys.readouterr())
    dataset = read_features(tmp_path / "run")
    assert dataset["roi"].values.tolist() == ["GTV-1"]
    assert dataset["radiomics"].notnull().all()


def test_structures_and_parameters_are_found_for_each_modality(shared_data: Path, tmp_path: Path) -> None:
    main(["init", str(shared_data / "sts"), "-o", str(tmp_path)])
    job = load_job(tmp_path / "sts.toml")
    assert set(job.cohort.roi) == {"GTV_Mass_CT", "GTV_Mass_MR_T1", "GTV_Mass_PET"}
    assert isinstance(job.radiomics.params, dict)
    assert {name: Path(file).name for name, file in job.radiomics.params.items()} == {
        "CT": "ct.yaml", "MR": "mr.yaml", "PT": "pt.yaml",
    }  # fmt: skip
    assert job.model.enabled is False


def test_images_without_masks_are_counted_and_the_stages_named_that_outline_regions(shared_data: Path, refused) -> None:
    said = refused("init", shared_data / "reported" / "B08_dup_contour" / "in" / "ct")
    assert "(files 12, patients 1, images 1 CT" in said
    assert "its sections segment, and brain for MR" in said


def test_the_ambiguous_codes_of_an_event_are_left_to_the_reader(shared_data: Path, tmp_path: Path) -> None:
    rows = "".join(f"X{i},{30 * i},{1 + i % 2}\n" for i in range(1, 20))
    (tmp_path / "clinical.csv").write_text(f"MRN,OS days,status\nLUNG1-002,155,2\n{rows}")
    (tmp_path / "images").symlink_to(shared_data / "lung1_002")
    main(["init", str(tmp_path / "images"), "-o", str(tmp_path / "out")])
    text = next((tmp_path / "out").glob("*.toml")).read_text()
    assert 'event_codes = { "1" = 0, "2" = 1 }' in text
    assert "enabled = false     # no outcome is known yet" in text
