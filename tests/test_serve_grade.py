"""A brain scan in a browser where the model has the features of its own network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.modelling.saved import load_frozen
from prognosis_dask.modelling.worth import worth_of
from prognosis_dask.networks.grade_network import feature_names
from prognosis_dask.prediction.scan import predict_scan
from prognosis_dask.web.settings import Settings
from tests.grade_network_run import make_grade_network_run, write_scan_files
from tests.served import Browser, running


@pytest.mark.slow
def test_the_page_tells_the_class_that_predict_tells_of_the_same_scan(tmp_path: Path) -> None:
    """The witness is `prognosis predict` on the same files."""
    run = make_grade_network_run(tmp_path / "run")
    assert set(load_frozen(run).fitted.chosen) & set(feature_names()), "the network has a say in the model"
    image, mask = write_scan_files(tmp_path)
    record = json.loads((run / "run.json").read_text())
    record["job"]["cohort"]["automatic"] = True  # as where training cases came without a mask
    (run / "run.json").write_text(json.dumps(record))
    with (
        connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client,
        running(client, [run], Settings(tmp_path / "served")) as server,
    ):
        expected = predict_scan(run, [image], tmp_path / "told", mask=mask, clinical={"age": "51"}, client=client)
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
    assert told["prediction"]["class"] == expected.prediction.class_
    assert told["prediction"]["probability"] == pytest.approx(dict(expected.prediction.probability), rel=1e-6)
    assert told["tumour"]["volume_ml"] == pytest.approx(expected.tumour.volume_ml, rel=1e-9)
    assert told["clinical"][0]["given"] == "51"
    # nothing in the file's name says that it is a T2, which the model's brains were prepared on
    assert told["scan"]["sequences"] == ["T2"]
    assert any("it was taken as T2" in warning for warning in told["warnings"])
    assert {one["feature"] for one in told["influences"]} & set(feature_names())
    assert f"<dd>{expected.prediction.class_}</dd>" in page
    sentence = worth_of(load_frozen(run), run).sentence
    assert told["worth"]["sentence"] == sentence
    assert sentence in page
    assert sentence in (tmp_path / "told" / "scan.html").read_text()
    assert json.loads((tmp_path / "told" / "scan.json").read_text())["worth"]["model_patients"] > 0
    automatic = "The tumour was found automatically"
    assert any(automatic in warning for warning in found["warnings"])
    assert not any(automatic in warning for warning in told["warnings"])
