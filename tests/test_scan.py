"""From prepared brains to a frozen grade, and one new scan predicted with it."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain.size import tumour_size
from prognosis_dask.brain.size_features import SIZE_FEATURES, size_values
from prognosis_dask.cli import main
from prognosis_dask.cohort.case import Case
from prognosis_dask.deep.grade_file import read_trained
from prognosis_dask.errors import CaseError, JobError, StatisticsError
from prognosis_dask.grade import check_grade, fit_grade
from prognosis_dask.job import (
    BrainSection,
    DeepSection,
    GradeSection,
    Job,
    ModelSection,
    RadiomicsSection,
    SynthSection,
)
from prognosis_dask.scan import predict_scan
from prognosis_dask.statistics.frozen import thaw
from prognosis_dask.store.brains import BrainStore, StoredBrain
from prognosis_dask.store.features import build_features, write_features
from prognosis_dask.store.outcome import Outcome
from prognosis_dask.synthetic import make_cohort
from tests.made_brains import made_scan

JOB = Job(
    name="made",
    brain=BrainSection(enabled=True, sequences=("T2",)),
    radiomics=RadiomicsSection(enabled=False),
    deep=DeepSection(enabled=False),
    grade=GradeSection(enabled=True, epochs=1, batch_size=8, patience=0, cross_fit=0, clinical=("age",)),
    model=ModelSection(label="grade", classes=("2", "3"), max_features=5, folds=2, repeats=1),
)


def prepared(grade, rng):
    """A ball of noise with a tumour in it: larger, and less even, in grade 3."""
    z, y, x = np.mgrid[:16, :32, :32]
    brain = ((z - 8) / 8) ** 2 + ((y - 16) / 15) ** 2 + ((x - 16) / 15) ** 2 < 1
    radius = rng.uniform(2.5, 3.5) + 1.5 * (grade == 3)
    tumour = ((z - 8) / 0.6) ** 2 + (y - 12) ** 2 + (x - 20) ** 2 < radius**2
    image = rng.normal(0, 0.3, brain.shape) + 2 * tumour + tumour * rng.normal(0, 0.5 * (grade == 3), brain.shape)
    made = []
    for array in ((image * brain).astype(np.float32), brain.astype(np.uint8), tumour.astype(np.uint8)):
        one = sitk.GetImageFromArray(array)
        one.SetSpacing((5.0, 5.0, 8.0))
        made.append(one)
    return StoredBrain(*made, attributes={"reference": "T2"})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder as the stages before leave it, with the grade fitted."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    store = BrainStore(folder / "brain")
    store.create()
    cases, outcomes = [], {}
    for number in range(14):
        grade = 2 + number % 2
        covariates = {"grade": str(grade), "age": str(40 + number), "histology": "astrocytoma"}
        case = Case(f"case-{number}", f"P{number}", "MR", "tumour", "i", "m", covariates=covariates)
        brain = prepared(grade, rng)
        store.write(case.case_id, brain, {})
        values = size_values(replace(tumour_size(brain.tumour), template_mm=(10.0, -5.0, 20.0)))
        outcomes[case.case_id] = Outcome(case.case_id, "brain", "d", None, {}, {"values": values})
        cases.append(case)
    dataset = build_features(
        cases, radiomic={}, deep=(), size=SIZE_FEATURES, outcomes={"brain": outcomes}, attributes={"settings": {}}
    )
    write_features(dataset, folder)
    (folder / "run.json").write_text(json.dumps({"name": "made", "job": asdict(JOB)}))
    summary = fit_grade(JOB, dataset, folder)
    assert "not_fitted" not in summary, summary
    return folder


@pytest.mark.slow
def test_the_run_ends_in_a_frozen_grade_of_all_families(run):
    summary = json.loads((run / "models" / "summary.json").read_text())
    assert summary["procedure"] == "all"
    assert summary["auc_cv"] > 0.9  # the size tells
    procedures = json.loads((run / "models" / "procedures.json").read_text())
    assert list(procedures) == ["size", "clinical", "network", "all"]
    frozen = thaw(run)
    assert frozen.classes == ("2", "3")
    network = read_trained(run / "networks" / "network.safetensors")
    assert frozen.fitted.source["network.sha256"] == network.sha256
    assert network.network.input_shape == (20, 64, 64)


@pytest.mark.slow
def test_what_is_known_from_the_operation_only_predicts_no_grade(run):
    features = thaw(run).fitted.features
    assert "age" in features
    assert not [name for name in features if "histology" in name or "grade" in name]


@pytest.fixture(scope="module")
def scan_files(tmp_path_factory):
    """A made patient's T2 and its tumour's mask, as files."""
    folder = tmp_path_factory.mktemp("scan")
    scan = made_scan(1)
    sitk.WriteImage(scan.sequences["T2"].image, str(folder / "new.nii.gz"))
    sitk.WriteImage(scan.lesion_mask, str(folder / "mask.nii.gz"))
    return folder


@pytest.mark.slow
def test_a_new_scan_is_predicted_measured_and_shown(run, scan_files, tmp_path, capsys):
    arguments = [str(run), str(scan_files / "new.nii.gz"), "--mask", str(scan_files / "mask.nii.gz")]
    main(["predict", *arguments, "--clinical", "age=51", "-o", str(tmp_path / "told")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "told" / "scan.html")
    told = json.loads((tmp_path / "told" / "scan.json").read_text())
    assert set(told["probability"]) == {"2", "3"}
    assert sum(told["probability"].values()) == pytest.approx(1)
    assert told["class"] == max(told["probability"], key=told["probability"].get)
    # the tumour as it was made
    assert told["tumour"]["mask"] == "drawn"
    assert told["tumour"]["volume_ml"] == pytest.approx(made_scan(1).lesion.volume_ml, rel=0.1)
    expected = made_scan(1).to_template.TransformPoint(made_scan(1).lesion.centre_mm.tolist())
    assert np.linalg.norm(np.subtract(told["tumour"]["template_mm"], expected)) < 10
    assert (tmp_path / "told" / "epitome.png").read_bytes().startswith(b"\x89PNG")
    # a made head is no ball of noise: what lies outside of what the model knows is said
    assert any("outside" in warning for warning in told["warnings"])


@pytest.mark.slow
def test_a_scan_is_a_folder_of_dicom_too(run, tmp_path):
    made = make_cohort(tmp_path / "made", SynthSection(2, study="brain", matrix=64, bad_cases=False))
    (patient,) = made.images.rglob("MADE-B0002")
    told = predict_scan(run, [patient], tmp_path / "told", clinical={"age": "51"})
    assert told.name == "MADE-B0002"
    assert list(told.files) == ["T2"]  # the job uses no other
    assert (patient in Path(told.files["T2"]).parents, told.mask) == (True, "drawn")
    truth = json.loads((tmp_path / "made" / "truth" / "MADE-B0002" / "truth.json").read_text(encoding="utf-8"))
    assert told.size.volume_ml == pytest.approx(truth["volume_ml"], rel=0.1)
    with pytest.raises(JobError, match="holds 2 cases"):
        predict_scan(run, [made.images], tmp_path / "told")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "mask", "says"),
    [
        (["none.nii.gz"], "", "no file at"),
        (["new.nii.gz"], "none.nii.gz", "no file at"),
        ({"T1": "new.nii.gz"}, "", "made on T2"),
        (["new.nii.gz", "mask.nii.gz"], "", "which sequences are"),
    ],
)
def test_a_scan_that_is_not_there_or_not_the_models_is_refused_at_once(run, scan_files, tmp_path, files, mask, says):
    files = (
        {name: scan_files / file for name, file in files.items()}
        if isinstance(files, dict)
        else [scan_files / file for file in files]
    )
    with pytest.raises(JobError, match=says):
        predict_scan(run, files, tmp_path / "told", mask=scan_files / mask if mask else "")
    assert not (tmp_path / "told").exists()


@pytest.mark.slow
def test_an_image_that_is_no_head_has_a_problem_in_one_line(run, tmp_path):
    image = sitk.Image(40, 40, 20, sitk.sitkInt16)
    image.SetSpacing((5.0, 5.0, 5.0))
    sitk.WriteImage(image, str(tmp_path / "empty.nii.gz"))
    with pytest.raises(CaseError, match="image-empty"):
        predict_scan(run, [tmp_path / "empty.nii.gz"], tmp_path / "told")


def test_a_folder_without_a_grade_is_refused(tmp_path):
    with pytest.raises(StatisticsError, match="no run that trained a grade"):
        predict_scan(tmp_path, ["scan.nii.gz"], tmp_path / "told")


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (replace(JOB, brain=BrainSection()), "brain.enabled"),
        (replace(JOB, model=ModelSection()), "model.label"),
    ],
)
def test_a_job_that_cannot_end_in_a_grade_is_refused_before_it_starts(job, says):
    with pytest.raises(JobError, match=says):
        check_grade(job)
