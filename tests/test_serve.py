"""One scan in a browser: uploads over HTTP to a real server on a real cluster, and all that must not get through."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
import re
import shutil
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from distributed import Client, Future
from PIL import Image

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.config.job import CohortSection, DeepSection, Job, SynthSection
from prognosis_dask.errors import CaseError, Code, JobError, StatisticsError
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.execution.task import run_task, stop_case
from prognosis_dask.features.dataset import read_features
from prognosis_dask.prediction.compose import scan_warnings
from prognosis_dask.prediction.model import TrainingScans, cohort_rules, load_model
from prognosis_dask.prediction.resolve import AUTOMATIC, ScanFiles, Upload, resolve_upload
from prognosis_dask.prediction.scan import predict_scan
from prognosis_dask.prediction.slices import _png
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.web.scan_queue import ScanQueue
from prognosis_dask.web.scans import Scan, Scans
from prognosis_dask.web.settings import HEADERS, Limits, RefusedError, Settings, sentence, token_for
from prognosis_dask.web.upload import ReceivedFile, unpack
from prognosis_dask.workflows.run import run_features
from tests.dask_processes import PATIENCE, wait_for
from tests.served import Browser, Running, running
from tests.served_models import make_survival_run

LUNG, CLINIC = "lung-demo", "clinic-demo"
CT_WITHOUT_MASK = "No outline of a tumour came with the images (patient-without-mask)."
NAME, ID = "Doe^Jane", "HOSPITAL-4711"


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_survival_run(tmp_path_factory.mktemp("models") / "lung")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes age and histology too."""
    return make_survival_run(tmp_path_factory.mktemp("models") / "clinic", job="clinic demo", clinical=True)


@pytest.fixture(scope="module")
def scan_zip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A made patient's CT with three structures, as a hospital would export it: with a name."""
    made = make_cohort(tmp_path_factory.mktemp("made"), SynthSection(patients=1, seed=5, bad_cases=False))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, path in enumerate(sorted(made.images.rglob("*.dcm"))):
            dataset = pydicom.dcmread(path)
            dataset.PatientName, dataset.PatientID = NAME, ID
            content = io.BytesIO()
            dataset.save_as(content)
            archive.writestr(f"Doe_Jane/{number}.dcm", content.getvalue())
    return stream.getvalue()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        yield client


@pytest.fixture(scope="module")
def server(client: Client, lung: Path, clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = Limits(upload_bytes=20_000_000, unpacked_bytes=40_000_000, files=100, scans_per_browser=3)
    with running(client, [lung, clinic], Settings(tmp_path_factory.mktemp("served"), limits=limits)) as server:
        yield server


@pytest.fixture
def browser(server: Running) -> Browser:
    browser = Browser(server.port)
    browser.get("/")
    return browser


@pytest.fixture(scope="module")
def done(server: Running, scan_zip: bytes) -> tuple[Browser, str]:
    """A browser whose scan is done; the model's rules do not name a structure, so it was asked for by name."""
    browser = Browser(server.port)
    browser.get("/")
    scan = browser.upload(LUNG, [("images", "Doe_Jane.zip", scan_zip)], roi="gtv-1")
    assert browser.wait(scan) == "done", browser.get(scan).message
    return browser, scan


def write_labels(folder: Path) -> tuple[Path, Path]:
    """An image file, and a label map with two structures."""
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.normal(40, 30, (16, 48, 48)).astype(np.float32))
    labels = np.zeros((16, 48, 48), np.uint8)
    labels[4:12, 10:24, 10:24], labels[5:9, 30:40, 30:40] = 1, 2
    mask = sitk.GetImageFromArray(labels)
    for name, one in (("Jane", image), ("anything", mask)):
        one.SetSpacing((1.0, 1.0, 3.0))
        sitk.WriteImage(one, str(folder / f"{name}.nii.gz"))
    return folder / "Jane.nii.gz", folder / "anything.nii.gz"


# what is uploaded ---------------------------------------------------------------------------------------------------


def test_an_upload_becomes_a_result(done: tuple[Browser, str]) -> None:
    browser, scan = done
    page = browser.get(scan).text
    told = json.loads(browser.get(f"{scan}/result.json").body)
    assert told["prediction"]["group"] in ("low", "high")
    assert 0 <= told["prediction"]["percentile"] <= 100
    assert told["scan"]["roi"] == "GTV-1"
    assert {"voxels in the ROI", "volume"} <= told["quality"].keys()
    rows = dict(csv.reader(io.StringIO(browser.get(f"{scan}/result.csv").text)))
    assert rows["prediction.group"] == told["prediction"]["group"]
    assert float(rows["prediction.percentile"]) == told["prediction"]["percentile"]
    assert f"<dd>{told['prediction']['group']}</dd>" in page
    for heading in ("Prediction", "Image", "Most influential features", "Quality of the preprocessing"):
        assert f">{heading}</h2>" in page
    for picture in ("survival.svg", "place.svg"):
        answer = browser.get(f"{scan}/{picture}")
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "image/svg+xml")


@pytest.fixture(scope="module")
def scan_folder(scan_zip: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    with zipfile.ZipFile(io.BytesIO(scan_zip)) as archive:
        archive.extractall(folder)
    return folder


def test_the_command_and_the_page_say_the_same_of_a_scan(
    done: tuple[Browser, str], lung: Path, client: Client, scan_folder: Path, tmp_path: Path
) -> None:
    browser, scan = done
    served = json.loads(browser.get(f"{scan}/result.json").body)
    found = predict_scan(lung, [scan_folder], tmp_path / "told", roi="gtv-1", client=client)
    told = json.loads((tmp_path / "told" / "scan.json").read_text())
    assert told == found.plain()
    (file,) = told["scan"].pop("files").values()  # on the web these could name the patient
    assert (Path(file), told["scan"].pop("name")) == (scan_folder / "Doe_Jane", scan_folder.name)
    assert (served["scan"].pop("files"), served["scan"].pop("name")) == (None, None)
    for content in (served, told):
        assert content.pop("seconds") > 0
        del content["finished"]
    assert told == served
    assert sorted(path.name for path in (tmp_path / "told").iterdir()) == ["scan.html", "scan.json"]
    page, offered = (tmp_path / "told" / "scan.html").read_text(), browser.get(f"{scan}/result.html").text
    of_one = re.compile(r"<title>.*|<h1>.*|<p class=\"lead\">.*|.*finished</th>.*")
    assert of_one.sub("", page) == of_one.sub("", offered)


def test_the_command_refuses_in_the_words_of_the_page(
    browser: Browser, lung: Path, client: Client, scan_folder: Path, scan_zip: bytes, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"holds \d cases \(.*GTV-1 on CT, \d+ slices.*\), expected one: .* --roi"):
        predict_scan(lung, [scan_folder], tmp_path / "told", client=client)
    shutil.copytree(scan_folder, tmp_path / "ct")
    for path in (tmp_path / "ct").rglob("*.dcm"):
        if pydicom.dcmread(path).Modality != "CT":
            path.unlink()
    with pytest.raises(CaseError) as ended:
        predict_scan(lung, [tmp_path / "ct"], tmp_path / "told", client=client)
    problem = ended.value.problem
    assert problem.code == Code.PATIENT_WITHOUT_MASK
    assert sentence(problem.code, problem.reason) == CT_WITHOUT_MASK
    assert not (tmp_path / "told").exists()


def test_files_of_an_image_and_a_mask_are_predicted_by_any_name_and_format(
    lung: Path, client: Client, tmp_path: Path
) -> None:
    image, mask = write_labels(tmp_path)
    sitk.WriteImage(sitk.ReadImage(str(image)), str(tmp_path / "Doe.nhdr"))
    for given in (image, tmp_path / "Doe.nhdr"):
        found = predict_scan(lung, [given], tmp_path / "told", mask=mask, roi="label 2", client=client)
        assert (found.scan.modality, found.scan.roi, found.scan.files) == ("CT", "label 2", {"image": str(given)})
        assert found.quality["voxels in the ROI"].value == 4 * 10 * 10
        assert found.prediction.group in ("low", "high")


def test_the_score_is_that_of_the_frozen_model_on_the_features_of_a_run(
    done: tuple[Browser, str], lung: Path, client: Client, scan_zip: bytes, tmp_path: Path
) -> None:
    """The witness is the pipeline on the same files, and the formula that model.json spells out."""
    with zipfile.ZipFile(io.BytesIO(scan_zip)) as archive:
        archive.extractall(tmp_path / "files")
    rules = CohortSection(sources=(str(tmp_path / "files"),), roi=("GTV-1",))
    run_features(Job("witness", cohort=rules, deep=DeepSection(enabled=False)), client, tmp_path / "run", say=str)
    features = read_features(tmp_path / "run")
    formula = json.loads((lung / "models" / "model.json").read_text())
    values = features["radiomics"].sel(radiomic=formula["features"]).values[0]
    z = (values - np.array(formula["mean"])) / np.array(formula["scale"])
    browser, scan = done
    told = json.loads(browser.get(f"{scan}/result.json").body)
    assert told["prediction"]["risk_score"] == pytest.approx(float(z @ np.array(formula["coefficient"])), rel=1e-9)
    # of a linear model a feature's share is coefficient times distance from the training median
    lines = {line["feature"]: line for line in told["influences"]}
    for name, coefficient, scale in zip(formula["features"], formula["coefficient"], formula["scale"], strict=True):
        line = lines[name]
        expected = coefficient * (line["value"] - line["training_median"]) / scale
        assert line["change"] == pytest.approx(expected, abs=1e-9)


def test_clinical_values_reach_the_prediction_and_what_is_left_empty_is_the_median(
    browser: Browser, clinic: Path, scan_zip: bytes
) -> None:
    """The witness is the formula that model.json spells out: the same scan, with values and without."""
    files = [("images", "scan.zip", scan_zip)]
    values = {f"{CLINIC}.0": " 71,5", f"{CLINIC}.1": "Squamous"}
    scans = [browser.upload(CLINIC, files, roi="gtv-1", **fields) for fields in (values, {f"{CLINIC}.0": ""})]
    assert [browser.wait(scan) for scan in scans] == ["done", "done"]
    given, empty = (json.loads(browser.get(f"{scan}/result.json").body) for scan in scans)
    formula = json.loads((clinic / "models" / "model.json").read_text())
    beta = {
        name: coefficient / scale
        for name, coefficient, scale in zip(formula["features"], formula["coefficient"], formula["scale"], strict=True)
    }
    median = empty["clinical"][0]["training_median"]
    # most patients have another histology: the median of "is squamous" is no
    expected = beta["age"] * (71.5 - median) + beta["histology=squamous"]
    change = given["prediction"]["risk_score"] - empty["prediction"]["risk_score"]
    assert change == pytest.approx(expected, rel=1e-9)
    assert [(one["column"], one["given"]) for one in given["clinical"]] == [("age", "71.5"), ("histology", "squamous")]
    assert [one["given"] for one in empty["clinical"]] == [None, None]
    told_missing = [any("Not known of this scan" in line for line in told["warnings"]) for told in (given, empty)]
    assert told_missing == [False, True]
    for path in (scans[0], f"{scans[0]}/result.html"):
        assert re.search(r"histology</th>\s*<td>squamous</td>", browser.get(path).text)
    assert f"not given: the training cases&#39; median, {median:.4g}," in browser.get(scans[1]).text.replace(
        "'", "&#39;"
    )


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("0", "old", "age is 'old', expected a number such as "),
        ("0", "1e99", "age is '1e99', expected a number such as "),
        ("1", "<b>mixed</b>", "expected one of adenocarcinoma, large cell, squamous, or nothing."),
    ],
)
def test_a_clinical_value_that_cannot_be_is_refused_in_a_sentence(
    browser: Browser, server: Running, field: str, text: str, words: str
) -> None:
    before = {path.name for path in server.scans.folder.iterdir()}
    answer = browser.send(CLINIC, [("images", "a.nii", b"x")], **{f"{CLINIC}.{field}": text})
    assert (answer.status, words in answer.message) == (400, True), answer.message
    assert "<b>" not in answer.text
    assert {path.name for path in server.scans.folder.iterdir()} == before


def test_several_structures_are_put_to_the_reader(browser: Browser, scan_zip: bytes) -> None:
    scan = browser.upload(LUNG, [("images", "scan.zip", scan_zip)])
    assert browser.wait(scan) == "choose"
    labels = re.findall(r'<label for="choice-(\d+)">(.*?)</label>', browser.get(scan).text)
    assert len(labels) > 1
    chosen = next(number for number, label in labels if label.startswith("GTV-1 on CT"))
    assert browser.post(f"{scan}/choose", {"form": browser.form(), "chosen": "99"}).status == 400
    browser.post(f"{scan}/choose", {"form": browser.form(), "chosen": chosen})
    assert browser.wait(scan, states=("done", "failed")) == "done"


def test_many_files_are_taken_like_a_zip(browser: Browser, scan_zip: bytes, done: tuple[Browser, str]) -> None:
    with zipfile.ZipFile(io.BytesIO(scan_zip)) as archive:
        files = [("images", "../../" * 9 + name, archive.read(name)) for name in archive.namelist()]
    scan = browser.upload(LUNG, files, roi="GTV-1")
    assert browser.wait(scan) == "done"
    scores = [
        json.loads(who.get(f"{at}/result.json").body)["prediction"]["risk_score"] for who, at in (done, (browser, scan))
    ]
    assert scores[0] == scores[1]


def test_nifti_with_a_label_map_of_two_labels_is_asked_about(browser: Browser, tmp_path: Path) -> None:
    image, mask = write_labels(tmp_path)
    files = [("images", "Doe_Jane.nii.gz", image.read_bytes()), ("mask", "anything.nii.gz", mask.read_bytes())]
    scan = browser.upload(LUNG, files)
    assert browser.wait(scan) == "choose"
    assert "label 2 on CT" in browser.get(scan).text  # the model's cohort is of CT
    browser.post(f"{scan}/choose", {"form": browser.form(), "chosen": "2"})
    assert browser.wait(scan, states=("done", "failed")) == "done"
    assert json.loads(browser.get(f"{scan}/result.json").body)["quality"]["voxels in the ROI"]["value"] == 4 * 10 * 10


def test_ct_without_a_mask_is_asked_for_one_and_takes_it_later(
    browser: Browser, done: tuple[Browser, str], scan_zip: bytes
) -> None:
    stream, contours = io.BytesIO(), b""
    with zipfile.ZipFile(io.BytesIO(scan_zip)) as archive, zipfile.ZipFile(stream, "w") as images:
        for name in archive.namelist():
            if pydicom.dcmread(io.BytesIO(archive.read(name))).Modality == "CT":
                images.writestr(name, archive.read(name))
            else:
                contours = archive.read(name)
    scan = browser.upload(LUNG, [("images", "ct.zip", stream.getvalue())])
    assert browser.wait(scan) == "failed"
    assert browser.get(scan).message == CT_WITHOUT_MASK
    assert f"{scan}/mask" in browser.get(scan).text
    stranger, whole = done
    assert stranger.send("", [("mask", "m.dcm", contours)], path=f"{scan}/mask").status == 403
    assert browser.send("", [("mask", "m.txt", b"no mask")], path=f"{scan}/mask").status == 303
    assert browser.wait(scan) == "failed"
    assert "No image in 1 file" in browser.get(scan).message
    assert browser.send("", [("mask", "m.dcm", contours)], path=f"{scan}/mask").status == 303
    assert browser.wait(scan) == "choose"
    names = re.findall(r'for="choice-\d+">(.*?)</label>', browser.get(scan).text)
    [wanted] = [place for place, name in enumerate(names) if name.startswith("GTV-1")]
    browser.post(f"{scan}/choose", {"form": browser.form(), "chosen": str(wanted)})
    assert browser.wait(scan, states=("done", "failed")) == "done"
    expected = json.loads(stranger.get(f"{whole}/result.json").body)["prediction"]
    assert json.loads(browser.get(f"{scan}/result.json").body)["prediction"] == expected
    # and the SEG of the result is a mask that is taken in its place
    with zipfile.ZipFile(io.BytesIO(browser.get(f"{scan}/dicom.zip").body)) as archive:
        segmentation = archive.read("mask.seg.dcm")
    shown = browser.get(f"{scan}/volume/mask.nii.gz").body
    assert browser.send("", [("mask", "m.dcm", segmentation)], path=f"{scan}/mask").status == 303
    assert browser.wait(scan, states=("done", "failed")) == "done", browser.get(scan).message
    assert json.loads(browser.get(f"{scan}/result.json").body)["prediction"] == expected
    assert browser.get(f"{scan}/volume/mask.nii.gz").body == shown


def test_a_label_map_is_replaced_by_another(browser: Browser, tmp_path: Path) -> None:
    image, mask = write_labels(tmp_path)
    files = [("images", "Doe_Jane.nii.gz", image.read_bytes()), ("mask", "anything.nii.gz", mask.read_bytes())]
    scan = browser.upload(LUNG, files, label="second   reading")
    assert browser.wait(scan) == "choose"
    second = sitk.ReadImage(str(mask)) == 2
    sitk.WriteImage(second, str(tmp_path / "other.nii.gz"))
    other = [("mask", "other.nii.gz", (tmp_path / "other.nii.gz").read_bytes())]
    assert browser.send("", other, path=f"{scan}/mask").status == 303
    assert browser.wait(scan, states=("done", "failed", "choose")) == "done", browser.get(scan).message
    told = json.loads(browser.get(f"{scan}/result.json").body)
    assert (told["quality"]["voxels in the ROI"]["value"], told["scan"]["name"]) == (4 * 10 * 10, "second reading")
    assert "second reading: " in browser.get("/").text
    browser.post(f"{scan}/label", {"form": browser.form(), "label": "<b>third"})
    assert "<h1>&lt;b&gt;third</h1>" in browser.get(scan).text


def look_at(folder: Path, takes_no_mask: bool, mask: str = "", reference: str = "") -> TaskResult:
    files = str(folder / "files" / mask) if mask else ""
    context = Upload(
        ScanFiles((str(folder / "files"),), files),
        str(folder / "index"),
        CohortSection(sequences=True),
        takes_no_mask,
        "MR",
        reference,
    )
    (outcome,) = resolve_upload((Case("scan-x", "scan-x", "", "", "", ""),), ("",), context)
    return outcome


def test_a_brain_without_a_mask_is_one_case_of_all_its_sequences(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("T1", "T1c", "FLAIR", "T2"):
        sitk.WriteImage(sitk.Image(8, 8, 8, sitk.sitkFloat32), str(tmp_path / "files" / f"{name}.nii.gz"))
    (case,) = look_at(tmp_path, takes_no_mask=True).values["cases"]  # type: ignore[attr-defined]
    assert (case.mask, case.roi, case.modality) == ("", AUTOMATIC, "MR")
    assert set(case.sequences) == {"T1", "T1c", "T2", "FLAIR"}
    assert Path(case.image).name == "T2.nii.gz"
    (case,) = look_at(tmp_path, takes_no_mask=True, reference="FLAIR").values["cases"]  # type: ignore[attr-defined]
    assert Path(case.image).name == "FLAIR.nii.gz"  # the model's own sequence
    problem = look_at(tmp_path, takes_no_mask=False).problem
    assert problem is not None
    assert problem.code == "patient-without-mask"


def test_sequences_are_told_apart_where_those_of_the_training_cases_were(lung: Path) -> None:
    """Their names may have come from a table, so that the job itself says nothing of sequences."""
    model = load_model(lung)
    assert not model.job.cohort.sequences
    assert not cohort_rules(model).sequences
    assert cohort_rules(replace(model, training=TrainingScans(reference="T2"))).sequences
    assert cohort_rules(model, "GTV-1").roi == ("GTV-1",)


def test_a_label_map_belongs_to_the_dicom_series_that_it_is_sent_with(scan_zip: bytes, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with zipfile.ZipFile(io.BytesIO(scan_zip)) as archive:
        for name in archive.namelist():
            if pydicom.dcmread(io.BytesIO(archive.read(name))).Modality == "CT":
                (tmp_path / "files" / Path(name).name).write_bytes(archive.read(name))
    mask = sitk.Image(8, 8, 8, sitk.sitkUInt8)
    mask[3, 3, 3] = 1
    sitk.WriteImage(mask, str(tmp_path / "files" / "mask.nii.gz"))
    outcome = look_at(tmp_path, takes_no_mask=False, mask="mask.nii.gz")
    (case,) = outcome.values["cases"]  # type: ignore[attr-defined]
    assert (Path(case.mask).name, case.modality) == ("mask.nii.gz", "CT")
    assert case.image.endswith(".series.json")
    assert outcome.values["secrets"] == [ID]


# what is seen -------------------------------------------------------------------------------------------------------


def test_a_result_of_another_version_is_not_shown_but_downloaded(server: Running, browser: Browser) -> None:
    scan_id, _ = server.scans.new_folder()
    server.scans.put(Scan(scan_id, "o", LUNG, "done"))
    server.scans.put_result(scan_id, {"version": 0})
    for path in ("", "/result.html", "/slice.png"):
        answer = browser.get(f"/scans/{scan_id}{path}")
        assert (answer.status, "Another version of this program" in answer.message) == (410, True)
    assert json.loads(browser.get(f"/scans/{scan_id}/result.json").body) == {"version": 0}
    server.scans.remove(scan_id)


def test_slices_are_drawn_in_the_window_that_is_asked_for(done: tuple[Browser, str]) -> None:
    browser, scan = done
    plain = pixels(browser.get(f"{scan}/slice.png?slice=10&centre=40&width=400").body)
    outlined = pixels(browser.get(f"{scan}/slice.png?slice=10&centre=40&width=400&outline=on").body)
    wide = pixels(browser.get(f"{scan}/slice.png?slice=10&centre=-600&width=1500").body)
    assert plain.ndim == 2
    assert (plain != wide).any()
    assert outlined.shape == (*plain.shape, 3)
    coloured = (outlined[..., 0] != outlined[..., 1]) | (outlined[..., 1] != outlined[..., 2])
    assert 0 < coloured.sum() < 0.05 * plain.size
    np.testing.assert_array_equal(outlined[..., 0][~coloured], plain[~coloured])
    for strange in ("slice=-5", "slice=1e99", "slice=abc&centre=nan&width=inf", "width=-3"):
        assert browser.get(f"{scan}/slice.png?{strange}").status == 200


def test_png_is_what_other_programs_read() -> None:
    import matplotlib.image

    rng = np.random.default_rng(0)
    for shape in ((7, 5), (7, 5, 3), (7, 5, 4)):
        made = rng.integers(0, 256, shape).astype(np.uint8)
        read = matplotlib.image.imread(io.BytesIO(_png(made)), format="png")
        np.testing.assert_array_equal((read * 255).round().astype(np.uint8), made)


def test_the_one_file_needs_no_other(done: tuple[Browser, str]) -> None:
    browser, scan = done
    answer = browser.get(f"{scan}/result.html")
    assert answer.headers["content-disposition"] == 'attachment; filename="scan.html"'
    assert not re.findall(r'(?:src|href)="(?!data:|#)', answer.text)
    assert "Research use only" in answer.text
    assert answer.text.count('class="pair"') > 5


def test_research_use_only_is_said_on_every_page(done: tuple[Browser, str]) -> None:
    browser, scan = done
    for path in ("/", scan, "/nothing", f"{scan}/nothing.png"):
        assert 'aria-label="Permitted use">Research use only.' in browser.get(path).text
    assert json.loads(browser.get(f"{scan}/result.json").body)["notice"].startswith("Research use only")


def test_a_scan_unlike_the_training_scans_is_warned_of() -> None:
    training = TrainingScans(frozenset({"CT"}), ((0.9, 0.9, 3.0), (1.0, 1.0, 3.0)))
    assert scan_warnings(training, "CT", (0.98, 0.98, 3.0)) == []
    assert scan_warnings(TrainingScans(), "MR", (9.0, 9.0, 9.0)) == []
    modality, spacing = scan_warnings(training, "MR", (0.98, 0.98, 5.0))
    assert "is MR, and the model learnt from CT" in modality
    assert "along z is 5.00 mm, in the model's training scans 3.00 mm" in spacing


def test_a_feature_beyond_all_training_cases_is_warned_of(done: tuple[Browser, str], lung: Path) -> None:
    browser, scan = done
    told = json.loads(browser.get(f"{scan}/result.json").body)
    frozen = load_model(lung).frozen
    least, most = frozen.limits(frozen.fitted.chosen)
    values = {line["feature"]: line["value"] for line in told["influences"]}
    outside = [name for name, a, b in zip(frozen.fitted.chosen, least, most, strict=True) if not a <= values[name] <= b]
    warned = " ".join(told["warnings"])
    assert outside, "the made patient is none of the made model's"
    assert all(name in warned for name in outside[:4])


# who it is ----------------------------------------------------------------------------------------------------------


def test_the_patient_is_neither_shown_nor_kept(
    done: tuple[Browser, str], server: Running, scan_zip: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    browser, scan = done
    pages = [browser.get(path).body for path in ("/", scan, f"{scan}/state", f"{scan}/result.json")]
    # pictures as their bytes: in a long text of base64 every three letters occur by chance
    one_file = re.sub(
        rb"base64,([\w+/=]+)", lambda held: base64.b64decode(held[1]), browser.get(f"{scan}/result.html").body
    )
    pages.append(one_file)
    folder = server.scans.path(scan.split("/")[-1])
    kept = [path for path in folder.rglob("*") if path.is_file() and "upload" not in path.relative_to(folder).parts]
    assert kept
    words = (b"Doe", b"Jane", ID.encode())
    for content in (*pages, *(path.read_bytes() for path in kept), *(str(path).encode() for path in kept)):
        assert not [word for word in words if word in content]
    files = [path for path in (folder / "upload").rglob("*") if path.is_file()]
    assert not [path for path in files if "Doe" in str(path.relative_to(folder))]  # nor do names of files name him
    out, err = capfd.readouterr()
    assert "Doe" not in out + err
    assert ID not in out + err


def test_the_upload_is_removed_on_request_and_the_result_stays(
    browser: Browser, server: Running, scan_zip: bytes
) -> None:
    scan = browser.upload(LUNG, [("images", "scan.zip", scan_zip)], roi="GTV-1")
    browser.wait(scan)
    folder = server.scans.path(scan.split("/")[-1])
    assert (folder / "upload").exists()
    assert "The uploaded files are removed." in browser.post(f"{scan}/remove-upload").text
    assert not (folder / "upload").exists()
    assert browser.get(f"{scan}/slice.png").status == 200
    browser.post(f"{scan}/remove")
    assert not folder.exists()
    assert browser.get(scan).status == 404


def test_dicom_of_a_result_is_for_the_browser_that_sent_it_as_long_as_its_upload_is_there(
    done: tuple[Browser, str], server: Running, scan_zip: bytes, tmp_path: Path
) -> None:
    browser = Browser(server.port)
    browser.get("/")
    scan = browser.upload(LUNG, [("images", "scan.zip", scan_zip)], roi="GTV-1")
    browser.wait(scan)
    assert f"{scan}/dicom.zip" in browser.get(scan).text
    with ThreadPoolExecutor(3) as pool:
        answer, *others = pool.map(browser.get, [f"{scan}/dicom.zip"] * 3)
    assert all(other.body == answer.body for other in others), "one SEG and its SR, however often at once"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        objects = {name: pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    assert {name: (str(one.Modality), str(one.PatientName)) for name, one in objects.items()} == {
        "mask.seg.dcm": ("SEG", NAME),
        "measurements.sr.dcm": ("SR", NAME),
    }
    stranger, _ = done
    assert f"{scan}/dicom.zip" not in stranger.get(scan).text
    assert stranger.get(f"{scan}/dicom.zip").status == 403
    browser.post(f"{scan}/remove-upload")
    assert f"{scan}/dicom.zip" not in browser.get(scan).text
    assert browser.get(f"{scan}/dicom.zip").status == 410


def test_uploads_are_removed_after_their_time(tmp_path: Path) -> None:
    scans = Scans(tmp_path)
    ages = {"old": 4000.0, "new": 10.0, "at work": 4000.0, "unanswered": 4000.0}
    states = {"old": "done", "new": "done", "at work": "running", "unanswered": "choose"}
    known = {}
    for name, age in ages.items():
        scan_id, upload = scans.new_folder()
        (upload / "image").touch()
        known[name] = scans.put(Scan(scan_id, "o", "m", states[name], created=time.time() - age))  # type: ignore[arg-type]
    half, _ = scans.new_folder()  # its upload broke off with the server
    scans.remove_old(3600.0)
    assert {name: scans.upload(scan.id).exists() for name, scan in known.items()} == {
        "old": False, "new": True, "at work": True, "unanswered": False,
    }  # fmt: skip
    assert "upload again" in scans.get(known["unanswered"].id).message  # type: ignore[union-attr]
    assert scans.path(half).exists()
    scans.remove_old(-1.0)
    assert not scans.path(half).exists()


def test_a_scan_whose_new_mask_was_lost_on_the_way_is_not_called_done(tmp_path: Path) -> None:
    scans = Scans(tmp_path / "scans")
    scan_id, upload = scans.new_folder()
    (upload / "unpacked.json").write_text("{}")
    scans.put(Scan(scan_id, "o", LUNG, "done"))
    queue = ScanQueue(None, scans, Limits(), {LUNG: None})  # type: ignore[arg-type, dict-item]
    with pytest.raises(FileNotFoundError):
        queue.add_mask(scan_id, (("mask", "mask", ""),), tmp_path / "gone")
    kept = Scans(tmp_path / "scans").get(scan_id)  # as the next server finds it
    assert kept is not None
    assert (kept.state, kept.message) == ("failed", "The mask did not come in whole; send it again.")
    assert queue.takes_mask(kept)


# what must not get through ------------------------------------------------------------------------------------------


def test_every_answer_carries_the_headers(done: tuple[Browser, str]) -> None:
    browser, scan = done
    paths = (
        "/",
        scan,
        f"{scan}/state",
        f"{scan}/slice.png",
        "/static/page.css",
        "/nothing",
        "/scans/../../etc/passwd",
    )
    for path in paths:
        headers = browser.get(path).headers
        for name, value in HEADERS.items():
            if name != "Cache-Control" or not path.startswith("/static"):
                assert headers[name.lower()] == value, (path, name)


def test_pages_hold_no_script_or_style_of_their_own(done: tuple[Browser, str]) -> None:
    browser, scan = done
    for path in ("/", scan):
        text = browser.get(path).text
        assert not re.findall(r"<script(?! src=)|<style| on\w+=| style=", text)


def test_a_form_of_another_page_is_refused(browser: Browser, server: Running, scan_zip: bytes) -> None:
    before = {path.name for path in server.scans.folder.iterdir()}
    files = [("images", "scan.zip", scan_zip)]
    assert browser.send(LUNG, files, form="0" * 64).status == 403
    assert browser.send(LUNG, files, form="").status == 403
    form = browser.form()
    foreign = replace(browser, headers={"Origin": "https://elsewhere.example"})
    assert foreign.send(LUNG, files, form=form).status == 403
    other = Browser(server.port)
    other.get("/")
    assert other.send(LUNG, files, form=form).status == 403  # another session's
    assert Browser(server.port).send(LUNG, files, form=form).status == 403
    assert {path.name for path in server.scans.folder.iterdir()} == before


def test_another_browser_cannot_change_a_scan(done: tuple[Browser, str], browser: Browser) -> None:
    owner, scan = done
    for action in ("remove", "remove-upload", "cancel", "choose"):
        assert browser.post(f"{scan}/{action}").status == 403
    assert owner.state(scan)["state"] == "done"


def test_another_name_for_this_machine_is_refused(server: Running) -> None:
    assert Browser(server.port, host="attacker.example").get("/", follow=False).status == 400


def test_uploads_beyond_the_limits_are_cut_off(browser: Browser, server: Running) -> None:
    before = {path.name for path in server.scans.folder.iterdir()}
    answer = browser.send(LUNG, [("images", "big.nii", bytes(21_000_000))])
    assert (answer.status, "larger than 20 MB" in answer.message) == (413, True)
    answer = browser.send(LUNG, [("images", f"{n}.dcm", b"x") for n in range(101)])
    assert (answer.status, "More than 100 files" in answer.message) == (413, True)
    assert browser.send(LUNG, []).status == 400
    assert browser.send("no-such-model", [("images", "a.nii", b"x")]).status == 400
    assert browser.ask("POST", "/scans", b"{}", "application/json").status == 415
    body, kind = b"--x\r\nContent-Disposition: form-data; na", "multipart/form-data; boundary=x"
    assert browser.ask("POST", "/scans", body, kind).status in (400, 403)
    assert {path.name for path in server.scans.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"not an image", "No image in 1 file: expected"),
        ("image.dcm", b"DICM" + bytes(300), "No image in 1 file: expected"),
        ("page.nii.gz", b"<script>alert(1)</script>" * 40, "No image in 1 file: expected"),
        ("cut.zip", b"PK\x03\x04" + bytes(100), "archive is damaged"),
        ("cut.nii.gz", b"\x1f\x8b\x08" + bytes(20), "damaged"),
        ("torn.dcm", bytes(128) + b"DICM" + bytes(range(256)) * 4, "nreadable file"),
        ("empty.zip", b"PK\x05\x06" + bytes(18), "No image in 0 files"),
    ],
)
def test_files_that_are_no_scan_end_in_a_sentence(browser: Browser, name: str, content: bytes, words: str) -> None:
    scan = browser.upload(LUNG, [("images", name, content)])
    assert browser.wait(scan) == "failed"
    page = browser.get(scan)
    assert words in page.message
    assert "Traceback" not in page.text
    assert "<script>alert" not in page.text


def hang(cases: tuple[Case, ...], digests: tuple[str, ...], folder: str) -> list[TaskResult]:
    """A stage that never ends; a file says that it began."""
    (Path(folder) / cases[0].case_id).touch()
    threading.Event().wait()
    raise AssertionError


def submit_hanging(client: Client, name: str, folder: Path) -> Future:
    """Work on a case of this name that only :func:`stop` ends."""
    case = Case(name, name, "", "", "", "")
    work = pickle.dumps((hang, str(folder)))
    return client.submit(run_task, "hang", work, (case,), ("",), 600.0, pure=False)


def stop(client: Client, name: str) -> None:
    client.run(stop_case, short_hash(name))


@contextmanager
def busy(client: Client, folder: Path) -> Iterator[None]:
    """The only worker has other work: no scan goes on meanwhile."""
    work = submit_hanging(client, "busy", folder)
    wait_for((folder / "busy").exists)
    try:
        yield
    finally:
        stop(client, "busy")
        assert work.result(timeout=PATIENCE)[0].problem.code == Code.STOPPED


def test_a_scan_that_waits_or_runs_is_cancelled(
    browser: Browser, server: Running, client: Client, scan_zip: bytes, tmp_path: Path
) -> None:
    """Stopped in its run: the worker's process for it is ended, and the worker takes the next scan."""
    with busy(client, tmp_path):
        scans = [browser.upload(LUNG, [("images", "scan.zip", scan_zip)], roi="GTV-1") for _ in range(3)]
        answer = browser.send(LUNG, [("images", "scan.zip", scan_zip)])
        assert (answer.status, "You have 3 scans in progress" in answer.message) == (429, True)
        browser.wait(scans[0], states=("running",))
        assert [browser.state(scan)["place"] for scan in scans] == [None, 1, 2]
        browser.post(f"{scans[2]}/cancel")
        browser.post(f"{scans[0]}/cancel")
    assert [browser.wait(scan) for scan in scans] == ["cancelled", "done", "cancelled"]
    wait_for(lambda: not server.scans.upload(scans[2].split("/")[-1]).exists())


def test_the_work_on_a_case_is_stopped_at_once_and_its_worker_goes_on(client: Client, tmp_path: Path) -> None:
    going, waiting = (submit_hanging(client, name, tmp_path) for name in ("going", "waiting"))
    wait_for((tmp_path / "going").exists)
    for name in ("going", "waiting"):
        stop(client, name)
    codes = [future.result(timeout=PATIENCE)[0].problem.code for future in (going, waiting)]
    assert codes == [Code.STOPPED, Code.STOPPED]
    assert not (tmp_path / "waiting").exists()


def test_a_token_is_asked_for_where_one_is_set(client: Client, lung: Path, tmp_path: Path) -> None:
    token = "a-token-that-is-long"
    with running(client, [lung], Settings(tmp_path, token=token)) as server:
        stranger = Browser(server.port)
        for path in ("/", "/scans/x", "/?token=wrong"):
            assert stranger.get(path).status == 401
        assert stranger.post("/login", {"token": "wrong"}).status == 401
        assert stranger.send(LUNG, [("images", "a.nii", b"x")], form="0" * 64).status == 403
        assert stranger.get("/static/page.css").status == 200
        assert stranger.post("/login", {"token": token}).status == 200
        assert "Upload a scan" in stranger.get("/").text
        invited = Browser(server.port)
        answer = invited.get(f"/?token={token}", follow=False)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=strict"))
        assert token not in cookie
        assert "Upload a scan" in invited.get("/").text


def test_a_token_is_made_for_every_address_but_this_machines_own() -> None:
    assert token_for("127.0.0.1", "") == ""
    assert len(token_for("0.0.0.0", "")) >= 32
    assert token_for("0.0.0.0", "") != token_for("0.0.0.0", "")
    assert token_for("127.0.0.1", "x" * 16) == "x" * 16
    with pytest.raises(JobError, match="at least 16"):
        token_for("0.0.0.0", "secret")


# archives, each tried without the network ---------------------------------------------------------------------------

LIMITS = Limits(files=20, unpacked_bytes=30_000_000, ratio=100, voxels=1_000_000)


def try_archive(tmp_path: Path, content: bytes) -> list[str]:
    received = tmp_path / "received"
    received.mkdir()
    (received / "00000").write_bytes(content)
    unpack([ReceivedFile(received / "00000", "images", "")], tmp_path / "files", LIMITS)
    return sorted(path.name for path in (tmp_path / "files").iterdir())


def archive_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


DICOM = bytes(128) + b"DICM" + bytes(500)


def test_no_member_is_written_by_its_own_name(tmp_path: Path) -> None:
    names = [
        "../../../outside.dcm",
        "/etc/passwd.dcm",
        "C:\\windows\\x.dcm",
        "a/../../b.dcm",
        "..\\..\\c.dcm",
        "x\0y.dcm",
    ]
    inner = tmp_path / "1" / "2" / "3"
    inner.mkdir(parents=True)
    assert try_archive(inner, archive_of(dict.fromkeys(names, DICOM))) == [f"{n:05d}.dcm" for n in range(1, 7)]
    outside = [
        path for path in tmp_path.rglob("*") if inner not in path.parents and path not in (inner, *inner.parents)
    ]
    assert outside == []


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"zeros.dcm": bytes(25_000_000)}, "many times its size"),
        ({f"{n}.dcm": DICOM for n in range(30)}, "more than 20 files"),
        ({f"{n}.dcm": bytes(9_000_000) for n in range(4)}, "larger than 30 MB"),
        ({"inner.zip": archive_of({"zeros": bytes(9_000_000)})}, "No image in 1 file"),
        ({"a.nrrd": b"NRRD0004\ntype: short\ndata file: /etc/passwd\nsizes: 2 2 2\n\n"}, "points to another file"),
        ({"a.nrrd": b"NRRD0004\ntype: short\nDataFile: LIST\nsizes: 2 2 2\n\n"}, "points to another file"),
        ({"a.nrrd": b"NRRD0004\ntype: short\nsizes: 9999 9999 9999\n\n"}, "up to 1,000,000"),
        ({"a.mhd": b"ObjectType = Image\nElementDataFile = /etc/passwd\n"}, "No image in 1 file"),
    ],
    ids=["bomb", "count", "size", "nested", "nrrd-file", "nrrd-list", "nrrd-huge", "mhd"],
)
def test_archives_that_are_no_scan_are_refused(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        try_archive(tmp_path, archive_of(members))


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    content = bytearray(archive_of({"zeros.dcm": bytes(25_000_000)}))
    at = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 24, 1000)  # the directory's uncompressed size
    with pytest.raises(RefusedError):
        try_archive(tmp_path, bytes(content))


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("link.dcm")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(RefusedError, match="links"):
        try_archive(tmp_path, stream.getvalue())


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    content = bytearray(archive_of({"a.dcm": DICOM}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    with pytest.raises(RefusedError, match="encrypted"):
        try_archive(tmp_path, bytes(content))


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 30000, 30000, 30000, 1, 1, 1, 1)
    header[344:348] = b"n+1\0"
    with pytest.raises(RefusedError, match="30000 x 30000 x 30000"):
        try_archive(tmp_path, bytes(header))


# models and restarts ------------------------------------------------------------------------------------------------


def test_a_model_without_its_job_is_not_served(lung: Path, tmp_path: Path) -> None:
    models = tmp_path / "alone"
    models.mkdir()
    for name in ("model.json", "arrays.npz"):
        (models / name).write_bytes((lung / "models" / name).read_bytes())
    with pytest.raises(JobError, match=r"nothing says how .* features are made.*job\.toml"):
        load_model(models)
    (models / "job.toml").write_text("[deep]\nenabled = false\n")
    assert load_model(models).job.radiomics.enabled
    with pytest.raises(StatisticsError, match=r"holds no model\.json"):
        load_model(tmp_path)


def test_nothing_is_lost_when_the_server_starts_anew(
    client: Client, lung: Path, scan_zip: bytes, tmp_path: Path
) -> None:
    settings = Settings(tmp_path)
    with running(client, [lung], settings) as first:
        browser = Browser(first.port)
        browser.get("/")
        ended = browser.upload(LUNG, [("images", "scan.zip", scan_zip)], roi="GTV-1")
        assert browser.wait(ended) == "done"
        result = browser.get(f"{ended}/result.json").body
        going = [browser.upload(LUNG, [("images", "scan.zip", scan_zip)], roi="GTV-1") for _ in range(2)]
        browser.wait(going[0], states=("running", "done"))
        lost = browser.upload(LUNG, [("images", "scan.zip", scan_zip)], roi="GTV-1")
    first.queue.join()
    scans = Scans(tmp_path / "scans")
    scans.change(lost.split("/")[-1], state="running")
    scans.remove_upload(lost.split("/")[-1])
    with running(client, [lung], settings) as second:
        browser.port = second.port  # its cookie still holds: the key is in the folder
        assert browser.get(f"{ended}/result.json").body == result
        assert browser.get(f"{ended}/slice.png").status == 200
        assert [browser.wait(scan) for scan in going] == ["done", "done"]
        assert browser.wait(lost) == "failed"
        assert "restarted, and its files are gone; upload again" in browser.get(lost).message


def pixels(png: bytes) -> np.ndarray:
    """A PNG of one grey or three colour channels."""
    return np.asarray(Image.open(io.BytesIO(png)))
