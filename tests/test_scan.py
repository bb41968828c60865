"""From prepared brains to a frozen grade, and one new scan predicted with it."""

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from prognosis_dask.cli.main import main
from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.series import SeriesListing, write_listing
from prognosis_dask.config.job import BrainSection, ModelSection, SynthSection
from prognosis_dask.errors import CaseError, JobError, StatisticsError
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.features.dataset import read_features
from prognosis_dask.modelling.data import network_features
from prognosis_dask.modelling.saved import load_frozen
from prognosis_dask.modelling.worth import worth_of
from prognosis_dask.networks.grade_network import feature_names
from prognosis_dask.networks.training import read_trained
from prognosis_dask.prediction.scan import predict_scan
from prognosis_dask.prediction.steps import on_reference
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.web.settings import Settings
from prognosis_dask.workflows.grade import check_grade, fit_grade
from tests.grade_network_run import JOB, make_grade_network_run, write_scan_files
from tests.served import Browser, running
from tests.synthetic_brains import made_scan


@pytest.fixture(scope="module")
def run(once, tmp_path_factory):
    return shutil.copytree(once("grade", make_grade_network_run), tmp_path_factory.mktemp("run") / "run")


@pytest.mark.slow
def test_the_run_ends_in_a_frozen_grade_of_all_families(run):
    summary = json.loads((run / "models" / "summary.json").read_text())
    assert summary["procedure"] == "all"
    assert summary["auc_cv"] > 0.9  # the size tells
    procedures = json.loads((run / "models" / "procedures.json").read_text())
    assert list(procedures) == ["size", "clinical", "network", "all"]
    frozen = load_frozen(run)
    assert frozen.classes == ("2", "3")
    network = read_trained(run / "networks" / "network.safetensors")
    assert frozen.fitted.source["network.sha256"] == network.sha256
    assert network.network.input_shape == (20, 64, 64)


@pytest.mark.slow
def test_the_grade_of_the_same_cases_is_fitted_again_without_training(run, monkeypatch):
    first = json.loads((run / "models" / "summary.json").read_text())
    monkeypatch.setattr(network_features, "train", None)
    asked = []

    def training_map(function, folds):
        asked.append(len(folds))
        return map(function, folds)

    assert fit_grade(JOB, read_features(run), run, training_map=training_map) == first
    assert asked == [1, 2]  # what is trained has a map of its own: the final network, then those of two folds


@pytest.mark.slow
def test_what_is_known_from_the_operation_only_predicts_no_grade(run):
    features = load_frozen(run).fitted.features
    assert "age" in features
    assert not [name for name in features if "histology" in name or "grade" in name]


@pytest.fixture(scope="module")
def client():
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        yield client


@pytest.fixture(scope="module")
def scan_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    write_scan_files(folder)
    return folder


@pytest.fixture(scope="module")
def predicted(run, scan_files):
    """The folder that the command writes of the scan."""
    folder = scan_files / "told"
    arguments = [str(run), str(scan_files / "new.nii.gz"), "--mask", str(scan_files / "mask.nii.gz")]
    with redirect_stdout(io.StringIO()) as said:
        main(["predict", *arguments, "--clinical", "age=51", "-o", str(folder)])
    assert said.getvalue().strip() == str(folder / "scan.html")
    return folder


@pytest.mark.slow
def test_a_new_scan_is_predicted_measured_and_shown(predicted):
    told = json.loads((predicted / "scan.json").read_text())
    assert set(told["prediction"]["probability"]) == {"2", "3"}
    assert sum(told["prediction"]["probability"].values()) == pytest.approx(1)
    probability = told["prediction"]["probability"]
    assert told["prediction"]["class"] == max(probability, key=probability.get)
    # the tumour as it was made
    assert told["tumour"]["mask"] == "drawn"
    assert told["tumour"]["volume_ml"] == pytest.approx(made_scan(1).lesion.volume_ml, rel=0.1)
    expected = made_scan(1).to_template.TransformPoint(made_scan(1).lesion.centre_mm.tolist())
    assert np.linalg.norm(np.subtract(told["tumour"]["template_mm"], expected)) < 10
    assert (predicted / "epitome.png").read_bytes().startswith(b"\x89PNG")
    # a synthetic head differs from noise: what lies outside the training range is said, of one scan and not of many
    assert any("Outside of what any training case had" in warning for warning in told["warnings"])
    assert not any("% of the cases" in warning for warning in told["warnings"])
    assert told["model"]["predicts"] == "grade: 2 or 3"
    assert "before and after the preparation" in (predicted / "scan.html").read_text()


@pytest.mark.slow
def test_the_page_tells_the_class_that_predict_tells_of_the_same_scan(run, client, scan_files, predicted, tmp_path):
    """In a browser, with the mask and without."""
    assert set(load_frozen(run).fitted.chosen) & set(feature_names()), "the network has a say in the model"
    model = Path(shutil.copytree(run, tmp_path / "model"))
    record = json.loads((model / "run.json").read_text())
    record["job"]["cohort"]["automatic"] = True  # as where training cases came without a mask
    (model / "run.json").write_text(json.dumps(record))
    image, mask = (scan_files / name for name in ("new.nii.gz", "mask.nii.gz"))
    with running(client, [model], Settings(tmp_path / "served")) as server:
        browser = Browser(server.port)
        browser.get("/")
        files = [("images", "new.nii.gz", image.read_bytes()), ("mask", "mask.nii.gz", mask.read_bytes())]
        scan = browser.upload("made", files, **{"made.0": "51"})
        assert browser.wait(scan, 900) == "done", browser.get(scan).message
        told = json.loads(browser.get(f"{scan}/result.json").body)
        page = browser.get(scan).text
        alone = browser.upload("made", files[:1], **{"made.0": "51"})
        assert browser.wait(alone, 900) == "done", browser.get(alone).message
        found = json.loads(browser.get(f"{alone}/result.json").body)
    expected = json.loads((predicted / "scan.json").read_text())
    assert told["prediction"]["class"] == expected["prediction"]["class"]
    assert told["prediction"]["probability"] == pytest.approx(expected["prediction"]["probability"], rel=1e-6)
    assert told["tumour"]["volume_ml"] == pytest.approx(expected["tumour"]["volume_ml"], rel=1e-9)
    assert told["clinical"][0]["given"] == "51"
    # nothing in the file's name says that it is a T2, which the model's brains were prepared on
    assert told["scan"]["sequences"] == ["T2"]
    assert any("it was taken as T2" in warning for warning in told["warnings"])
    assert {one["feature"] for one in told["influences"]} & set(feature_names())
    assert f"<dd>{expected['prediction']['class']}</dd>" in page
    sentence = worth_of(load_frozen(model), model).sentence
    assert told["worth"]["sentence"] == sentence
    assert sentence in page
    assert sentence in (predicted / "scan.html").read_text()
    assert expected["worth"]["model_patients"] > 0
    automatic = "The tumour was found automatically"
    assert any(automatic in warning for warning in found["warnings"])
    assert not any(automatic in warning for warning in told["warnings"])


def _affine(series: Path) -> np.ndarray:
    """Of the series, as highdicom has it."""
    return highdicom.get_volume_from_series([pydicom.dcmread(path) for path in sorted(series.rglob("*.dcm"))]).affine


@pytest.mark.slow
def test_a_scan_is_a_folder_of_dicom_too(run, client, tmp_path):
    made = make_cohort(tmp_path / "made", SynthSection(2, study="brain", matrix=64, bad_cases=False))
    (patient,) = made.images.rglob("MADE-B0002")
    told = predict_scan(run, [patient], tmp_path / "told", clinical={"age": "51"}, dicom=True, client=client)
    assert told.scan.name == "MADE-B0002"
    mask = highdicom.seg.segread(tmp_path / "told" / "mask.seg.dcm")  # on the scanner's slices, not on the brain's axes
    own, series = mask.get_volume().affine, _affine(Path(told.scan.files["T2"]))
    assert own[:, :3] == pytest.approx(series[:, :3], abs=0.01)
    assert own[:2, 3] == pytest.approx(series[:2, 3], abs=0.01)  # it begins at its own first slice
    millilitres = mask.get_volume().array.sum() * np.prod(mask.get_volume().spacing) / 1000
    assert millilitres == pytest.approx(told.quality["volume"].value, rel=1e-6)
    assert list(told.scan.files) == ["T2"]  # the job uses no other
    assert (patient in Path(told.scan.files["T2"]).parents, told.tumour.mask) == (True, "drawn")
    truth = json.loads((tmp_path / "made" / "truth" / "MADE-B0002" / "truth.json").read_text(encoding="utf-8"))
    assert told.tumour.volume_ml == pytest.approx(truth["volume_ml"], rel=0.1)
    with pytest.raises(JobError, match="holds 2 cases"):
        predict_scan(run, [made.images], tmp_path / "told", client=client)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clinical", "says"),
    [({"age": "old"}, "age is 'old', expected a number"), ({"shoe": "44"}, "takes no column 'shoe'.* age")],
)
def test_a_clinical_value_that_the_model_cannot_take_is_refused_at_once(run, scan_files, tmp_path, clinical, says):
    with pytest.raises(StatisticsError, match=says):
        predict_scan(run, [scan_files / "new.nii.gz"], tmp_path / "told", clinical=clinical)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "mask", "says"),
    [
        (["none.nii.gz"], "", "no file at"),
        (["new.nii.gz"], "none.nii.gz", "no file at"),
        ({"T1": "new.nii.gz"}, "", "fitted on T2"),
        (["new.nii.gz", "mask.nii.gz"], "", "which sequences are"),
    ],
)
def test_a_scan_that_is_not_there_or_not_the_models_is_refused_at_once(
    run, client, scan_files, tmp_path, files, mask, says
):
    files = (
        {name: scan_files / file for name, file in files.items()}
        if isinstance(files, dict)
        else [scan_files / file for file in files]
    )
    with pytest.raises(JobError, match=says):
        predict_scan(run, files, tmp_path / "told", mask=scan_files / mask if mask else "", client=client)
    assert not (tmp_path / "told").exists()


@pytest.mark.slow
def test_an_image_that_is_no_head_has_a_problem_in_one_line(run, client, tmp_path):
    image = sitk.Image(40, 40, 20, sitk.sitkInt16)
    image.SetSpacing((5.0, 5.0, 5.0))
    sitk.WriteImage(image, str(tmp_path / "empty.nii.gz"))
    with pytest.raises(CaseError, match="image-empty"):
        predict_scan(run, [tmp_path / "empty.nii.gz"], tmp_path / "told", client=client)


def test_a_head_is_prepared_on_the_sequence_that_the_model_learnt_from():
    both = Case("c", "p", "MR", "mask", "/T1", "", sequences={"T1": "/T1", "T2": "/T2"})
    case, notes = on_reference(both, "T2")
    assert (case.image, notes) == ("/T2", [])
    case, notes = on_reference(replace(both, sequences={}), "T2")
    assert (case.sequences, "it was taken as T2" in notes[0]) == ({"T2": "/T1"}, True)
    assert "is not known" in on_reference(both, "")[1][0]
    with pytest.raises(JobError, match="fitted on FLAIR, but the scan's sequences are T1, T2; give a FLAIR image"):
        on_reference(both, "FLAIR")


@pytest.mark.parametrize("name", ["ADC.nii.gz", "P1_rCBV.nii.gz", "T1_T2_ratio.nii.gz", "DWI_b1000.nii.gz"])
def test_a_map_is_not_taken_for_the_sequence_that_the_model_learnt_from_unless_it_is_named_so(name):
    case = Case("c", "p", "MR", "mask", f"/scans/{name}", "")
    with pytest.raises(JobError, match=r"fitted on T2, but the scan's name or header shows another kind of .* T2=FILE"):
        on_reference(case, "T2")
    named = replace(case, sequences={"T2": case.image})
    assert on_reference(named, "T2") == (named, [])


@pytest.mark.parametrize("name", ["MRA_001.nii.gz", "ASL-7.nii.gz", "sub_A.nii.gz"])
def test_a_study_that_is_called_like_a_map_is_taken_with_a_note(name):
    case, notes = on_reference(Case("c", "p", "MR", "mask", f"/scans/{name}", ""), "T2")
    assert case.sequences == {"T2": f"/scans/{name}"}
    assert "it was taken as T2" in notes[0]


def test_a_dicom_map_is_no_reference_sequence_by_its_image_type(tmp_path):
    acquired = {"image_type": "DERIVED\\PRIMARY\\ADC"}
    listing = SeriesListing("1.2", "1.3", "p", "MR", "", "HEAD", "", (), acquisition=acquired)
    case = Case("c", "p", "MR", "mask", str(write_listing(tmp_path, listing)), "")
    with pytest.raises(JobError, match="shows another kind of image"):
        on_reference(case, "T2")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(StatisticsError, match=r"holds no model\.json"):
        predict_scan(tmp_path, ["scan.nii.gz"], tmp_path / "told")


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (replace(JOB, brain=BrainSection()), "brain.enabled"),
        (replace(JOB, model=ModelSection()), "model.label"),
        (replace(JOB, grade=replace(JOB.grade, clinical=("age", "Grade"))), "names 'grade', which is to be predicted"),
        (replace(JOB, model=replace(JOB.model, classes=("2", "3", "4"))), "classes is 2, 3, 4; .* learns two"),
        (replace(JOB, model=replace(JOB.model, learner="cox")), "model.learner 'cox' does not model classes"),
        (replace(JOB, model=replace(JOB.model, selector="cox-univariate")), "'cox-univariate' does not select for"),
        (replace(JOB, model=replace(JOB.model, selector="best")), "model.selector is 'best', expected"),
    ],
)
def test_a_job_that_cannot_end_in_a_grade_is_refused_before_it_starts(job, says):
    with pytest.raises(JobError, match=says):
        check_grade(job)


def test_a_scan_is_prepared_as_the_models_cases_were_and_settings_are_refused(tmp_path, refused):
    (tmp_path / "new_T2.nii.gz").write_bytes(b"")
    said = refused("predict", "run", tmp_path / "new_T2.nii.gz", "-o", "told", "--set", "brain.bias_field=false")
    assert "--set and --spec are for tables" in said
