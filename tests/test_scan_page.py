"""What is said of one new scan: the same numbers in JSON and on a page that needs no other file."""

import base64
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain.pictures import epitome
from prognosis_dask.brain.size import tumour_size
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import StoreError
from prognosis_dask.prediction.result import (
    NOTICE,
    VERSION,
    Epitome,
    EpitomeSlice,
    ModelOutput,
    Quantity,
    ScanInfo,
    ScanPrediction,
    Tumour,
)
from prognosis_dask.prediction.scan import _write, expect_room
from prognosis_dask.prediction.slices import SliceTask, write_slices
from prognosis_dask.storage.brains import BrainStore, StoredBrain

WRITTEN = ["epitome.png", "scan.html", "scan.json"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scan's steps: prepared brain, slices, pictures."""
    folder = tmp_path_factory.mktemp("work")
    z, y, x = np.mgrid[:12, :40, :40]
    mask = sitk.GetImageFromArray(((z - 5) ** 2 + ((y - 18) / 3) ** 2 + ((x - 20) / 3) ** 2 < 9).astype(np.uint8))
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (12, 40, 40)).astype(np.float32))
    for one in (mask, image):
        one.SetSpacing((2.0, 2.0, 4.0))
    store = BrainStore(folder / "brain")
    store.create()
    store.write("scan", StoredBrain(image, mask, mask, {"template_mm": [1.0, 2.0, 3.0]}), {})
    for name in ("epitome", "quality"):
        (folder / f"{name}.png").write_bytes(epitome(image, mask).mosaic)
    return folder


@pytest.fixture(scope="module")
def result(work: Path) -> ScanPrediction:
    task = SliceTask(str(work / "slices.zarr"), ImageSection(), str(work / "brain"))
    (outcome,) = write_slices((Case("scan", "scan", "MR", "mask", "", ""),), ("",), task)
    assert outcome.problem is None
    size = tumour_size(BrainStore(work / "brain").read("scan").tumour)
    mosaic = base64.b64encode((work / "epitome.png").read_bytes()).decode()
    return ScanPrediction(
        version=VERSION,
        notice=NOTICE,
        program="prognosis_dask 0",
        finished="2026-11-29 00:00 UTC",
        seconds=1.0,
        model={"title": "grade", "learnt from": "140 cases"},
        worth={"sentence": "The model: learnt from 140 cases.", "model_cases": 140},
        scan=ScanInfo(
            "<Patient & Co>", {"T2": "/data/new/T2.nii.gz", "FLAIR": "/data/new/FLAIR.nii.gz"}, "MR", "mask", ("T2",)
        ),
        view=outcome.values["view"],
        clinical=(),
        prediction=ModelOutput(
            "class", "grade III", {"grade II": 0.25, "grade III": 0.75}, 1.1, percentile=80.0, group=None, survival={}
        ),
        influences=(),
        tumour=Tumour.of(size, "drawn", None),
        epitome=Epitome((EpitomeSlice(size.slice_index, "largest"),), mosaic),
        quality={"brain_volume_l": Quantity(1.3124, "L")},
        warnings=(),
    )


def written(result: ScanPrediction, work: Path, folder: Path) -> tuple[dict, str]:
    _write(result, work, folder, [])
    return json.loads((folder / "scan.json").read_text()), (folder / "scan.html").read_text()


def test_json_and_page_say_class_probability_and_size(result, work, tmp_path):
    told, text = written(result, work, tmp_path / "scan")
    assert told["version"] == VERSION
    assert told["prediction"]["class"] == "grade III"
    assert told["prediction"]["probability"] == {"grade II": 0.25, "grade III": 0.75}
    assert told["tumour"]["volume_ml"] == result.tumour.volume_ml
    assert base64.b64decode(told["epitome"]["mosaic_png_base64"]) == (tmp_path / "scan" / "epitome.png").read_bytes()
    assert "<dd>grade III</dd>" in text
    assert f"{result.tumour.volume_ml:.1f} ml" in text
    assert "outlined by hand" in text
    # programs count slices from 0, readers from 1, as viewers do
    middle = told["tumour"]["slice_index"]
    assert middle in [one["index"] for one in told["epitome"]["slices"]]
    assert re.search(rf"slice of these diameters</t[hd]>\s*<td[^>]*>{middle + 1}<", text)
    assert f"{middle + 1} (largest)" in text
    assert "Not a medical device" in text
    assert "1.312 L" in text


def test_the_json_has_the_fields_that_are_documented_each_number_with_its_unit(result):
    """In its name, beside it, or in the documentation where it is a share, a count or a percentage."""
    document = (Path(__file__).parents[1] / "docs" / "prediction.md").read_text(encoding="utf-8")
    for field in fields(ScanPrediction):
        assert f"`{field.name}`" in document, field.name
    assert list(result.plain()) == [field.name for field in fields(ScanPrediction)]
    assert all(set(one) == {"value", "unit"} for one in result.plain()["quality"].values())


def test_the_page_needs_no_other_file_and_takes_names_as_text(result, work, tmp_path):
    _, text = written(result, work, tmp_path / "scan")
    assert "&lt;Patient &amp; Co&gt;" in text
    assert "<Patient" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "T2 (T2.nii.gz), FLAIR (FLAIR.nii.gz)" in text
    assert "/data/new" not in text  # a file's name is enough


def test_the_page_shows_the_image_before_and_after_its_preparation(result, work, tmp_path):
    _, text = written(result, work, tmp_path / "scan")
    assert 'alt="Slices of the head before and after the preparation' in text
    assert text.count("<figure>") == 2
    assert text.count('class="pair"') == 5  # the slices that the tumour lies on


def test_a_tumour_that_was_found_automatically_is_never_taken_for_a_drawn_one(result, work, tmp_path):
    tumour = replace(result.tumour, mask="automatic", confidence=0.4)
    told, text = written(replace(result, tumour=tumour, warnings=("Look at it.",)), work, tmp_path / "scan")
    assert re.search(r'class="warning">The tumour was found automatically.*confidence 0\.40', text)
    assert 'class="warning">Look at it.' in text
    assert (told["tumour"]["mask"], told["tumour"]["confidence"]) == ("automatic", 0.4)


def test_the_folder_is_replaced_as_a_whole_and_nothing_else_is(result, work, tmp_path):
    written(result, work, tmp_path / "scan")
    (tmp_path / "scan" / "left.txt").write_text("of an older one")
    expect_room(tmp_path / "scan")
    written(result, work, tmp_path / "scan")
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == WRITTEN
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kept.txt").touch()
    with pytest.raises(StoreError, match="holds something else"):
        expect_room(tmp_path / "other")
