"""The viewer in three planes: what it is given, and what a browser draws of it."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from playwright.sync_api import Page, expect

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import ImageSection, SynthSection
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.prediction.page import VIEWER, shown, vendored, volume_file
from prognosis_dask.prediction.slices import SliceTask, write_slices
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.web.settings import Settings
from tests import browser
from tests.browser import PATIENCE_MS, needs_browser, new_context
from tests.served import Browser, running, zipped
from tests.served_models import make_survival_run

ISO = np.eye(3)
#: Software rendering, where there is no graphics processor.
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


@pytest.mark.parametrize(
    "direction",
    [ISO, np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, 1.0, -1.0]), [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]],
    ids=["as DICOM", "as NIfTI", "from the top", "oblique"],
)
def test_every_voxel_keeps_its_value_and_its_place(tmp_path: Path, direction: np.ndarray) -> None:
    values = np.random.default_rng(1).normal(0, 300, (5, 7, 9)).round().astype(np.float32)
    inside = np.zeros(values.shape, np.uint8)
    inside[1:4, 2:6, 3:5] = 1
    image, mask = sitk.GetImageFromArray(values), sitk.GetImageFromArray(inside)
    for name, one in (("image", image), ("mask", mask)):
        one.SetSpacing((0.9, 1.1, 3.0))
        one.SetOrigin((-20.0, 31.0, 4.5))
        one.SetDirection(np.ravel(direction).tolist())
        sitk.WriteImage(one, str(tmp_path / f"{name}.nii.gz"))
    case = Case("a", "a", "CT", "mask", str(tmp_path / "image.nii.gz"), str(tmp_path / "mask.nii.gz"))
    (told,) = write_slices((case,), ("",), SliceTask(str(tmp_path / "slices.zarr"), ImageSection()))
    assert told.problem is None
    for name, source in (("image.nii.gz", image), ("mask.nii.gz", mask)):
        file = nibabel.load(volume_file(tmp_path / "slices.zarr", name))
        for index in np.ndindex(file.shape):
            right, front, top = (file.affine @ [*index, 1.0])[:3]
            there = source.TransformPhysicalPointToIndex((-right, -front, top))
            assert source[there] == file.dataobj[index]
    loaded = load_roi(case, ImageSection(), full=True, one_slice=True)
    assert np.count_nonzero(file.dataobj) == np.count_nonzero(sitk.GetArrayViewFromImage(loaded.mask))
    assert [name for name, *_ in shown(tmp_path / "slices.zarr").presets][:2] == ["Soft tissue", "Lung"]


def test_the_viewer_is_the_published_file_and_needs_no_eval() -> None:
    folder = files("prognosis_dask.prediction") / "vendor"
    said = re.search(r"`([0-9a-f]{64})`", (folder / "README.md").read_text())
    assert said
    assert hashlib.sha256((folder / VIEWER).read_bytes()).hexdigest() == said[1]
    assert not re.search(r"\beval\(|new Function\(|\bnew Worker\(", vendored(VIEWER))
    assert "Copyright (c) 2021, Niivue" in (folder / "niivue.LICENSES.txt").read_text()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The result of a made patient's CT, in a browser that draws by software."""
    folder = tmp_path_factory.mktemp("seen")
    cohort = make_cohort(folder / "made", SynthSection(patients=1, seed=5, bad_cases=False))
    scan = zipped(cohort.images, folder / "scan.zip").read_bytes()
    with (
        connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client,
        running(client, [make_survival_run(folder / "lung")], Settings(folder / "served")) as server,
    ):
        sender = Browser(server.port)
        sender.get("/")
        address = sender.upload("lung-demo", [("images", "scan.zip", scan)], roi="GTV-1")
        assert sender.wait(address) == "done"
        with browser.chromium(*SOFTWARE_GL) as chromium:
            context = new_context(chromium)
            page = context.new_page()
            complaints: list[str] = []
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(f"http://127.0.0.1:{server.port}/")
            page.goto(f"http://127.0.0.1:{server.port}{address}")
            expect(page.locator("#volume")).to_have_attribute("data-ready", "yes", timeout=PATIENCE_MS)
            yield page
            # the content security policy stood in nobody's way
            assert [text for text in complaints if "GPU stall" not in text and "GL Driver" not in text] == []
            context.close()


def drawn(page: Page) -> np.ndarray:
    """What the canvas shows."""
    return np.asarray(Image.open(io.BytesIO(page.locator("#volume").screenshot())).convert("RGB"), float)


@pytest.mark.slow
@needs_browser
def test_the_canvas_shows_image_and_structure_and_obeys_every_control(seen: Page) -> None:
    first = drawn(seen)
    assert first.std() > 10
    orange = (first[..., 0] - first[..., 2]) > 40
    assert orange.sum() > 20
    assert not seen.locator("#slice-image").is_visible()

    def changes(what: str) -> np.ndarray:
        after = drawn(seen)
        assert np.abs(after - before).max() > 20, what
        return after

    before = first
    seen.locator("#opacity").fill("100")
    full = changes("opacity")
    assert (full[..., 0] - full[..., 2]).sum() > (first[..., 0] - first[..., 2]).sum()
    seen.locator("#opacity").fill("0")
    seen.get_by_label("Outline of the structure").uncheck()
    bare = drawn(seen)
    assert ((bare[..., 0] - bare[..., 2]) > 40).sum() < orange.sum()

    before = bare
    seen.get_by_role("button", name="Lung").click()
    changes("window")
    before, at = drawn(seen), seen.locator("#volume").get_attribute("data-voxel")
    box = seen.locator("#volume").bounding_box()
    assert box
    seen.get_by_role("button", name="Axial").click()
    before = drawn(seen)
    seen.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.mouse.wheel(0, 120)
    expect(seen.locator("#volume")).not_to_have_attribute("data-voxel", at or "")
    changes("wheel")
    seen.get_by_role("button", name="Go to the structure").click()
    expect(seen.locator("#volume")).to_have_attribute("data-voxel", at or "")
    before = drawn(seen)
    seen.get_by_role("button", name="Zoom in").click()
    changes("zoom")
    before, pan = drawn(seen), seen.locator("#volume").get_attribute("data-pan")
    seen.locator("#volume").focus()
    seen.keyboard.press("PageUp")
    slice_of = [int(one) for one in (seen.locator("#volume").get_attribute("data-voxel") or "").split()][2]
    assert slice_of == int((at or "").split()[2]) + 1
    assert seen.locator("#slice-told").inner_text().startswith(f"{slice_of + 1} of")
    assert pan != "0.0 0.0 0.0"
    seen.get_by_role("button", name="Whole image").click()
    expect(seen.locator("#volume")).to_have_attribute("data-zoom", "1.00")
