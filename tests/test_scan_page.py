"""What is said of one new scan: the same numbers in JSON and on a page that needs no other file."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain.epitome import epitome
from prognosis_dask.brain.size import tumour_size
from prognosis_dask.prediction.page import ScanResult, write_scan


@pytest.fixture(scope="module")
def result():
    z, y, x = np.mgrid[:12, :40, :40]
    mask = sitk.GetImageFromArray(((z - 5) ** 2 + ((y - 18) / 3) ** 2 + ((x - 20) / 3) ** 2 < 9).astype(np.uint8))
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (12, 40, 40)).astype(np.float32))
    for one in (mask, image):
        one.SetSpacing((2.0, 2.0, 4.0))
    shown = epitome(image, mask)
    return ScanResult(
        name="<Patient & Co>",
        files={"T2": "/data/new/T2.nii.gz", "FLAIR": "/data/new/FLAIR.nii.gz"},
        probability={"grade II": 0.25, "grade III": 0.75},
        model={"learnt from": "140 cases"},
        mask="drawn",
        confidence=None,
        size=tumour_size(mask),
        slices=dict.fromkeys(shown.slices, "largest"),
        mosaic=shown.mosaic,
        quality={"brain_volume_ml": 1312.4},
    )


def test_json_and_page_say_class_probability_and_size(result, tmp_path):
    page = write_scan(result, tmp_path / "scan")
    told = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert (told["class"], told["probability"]) == ("grade III", {"grade II": 0.25, "grade III": 0.75})
    assert told["tumour"]["volume_ml"] == result.size.volume_ml
    assert base64.b64decode(told["epitome"]["mosaic_png_base64"]) == (tmp_path / "scan" / "epitome.png").read_bytes()
    text = page.read_text()
    assert "grade III" in text
    assert f"{result.size.volume_ml:.1f} ml" in text
    assert "outlined by hand" in text
    # programs count slices from 0, readers from 1, as viewers do
    middle = told["tumour"]["slice_index"]
    assert middle in [one["index"] for one in told["epitome"]["slices"]]
    assert re.search(rf"slice of these diameters</t[hd]>\s*<td[^>]*>{middle + 1}<", text)
    assert f"{middle + 1} (largest)" in text
    assert "not a medical device" in text


def test_the_page_needs_no_other_file_and_takes_names_as_text(result, tmp_path):
    text = write_scan(result, tmp_path / "scan").read_text()
    assert "&lt;Patient &amp; Co&gt;" in text
    assert "<Patient" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "/data/new" not in text  # a file's name is enough


def test_the_page_shows_the_image_before_and_after_its_preparation(result, tmp_path):
    other = replace(result, before_after=result.mosaic)
    text = write_scan(other, tmp_path / "scan").read_text()
    assert 'alt="Slices of the head before and after the preparation' in text
    assert text.count("<figure id=") == 2


def test_a_tumour_that_was_found_automatically_is_never_taken_for_a_drawn_one(result, tmp_path):
    found = replace(result, mask="automatic", confidence=0.4, warnings=("Look at it.",))
    text = write_scan(found, tmp_path / "scan").read_text()
    assert re.search(r'class="warning">The tumour was found automatically.*confidence 0\.40', text)
    assert 'class="warning">Look at it.' in text
    told = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert (told["tumour"]["mask"], told["tumour"]["confidence"]) == ("automatic", 0.4)


def test_the_folder_is_replaced_as_a_whole(result, tmp_path):
    write_scan(result, tmp_path / "scan")
    (tmp_path / "scan" / "left.txt").write_text("of an older one")
    write_scan(result, tmp_path / "scan")
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == ["epitome.png", "scan.html", "scan.json"]
