"""A case in a notebook: the viewer in one output, in a browser that is cut off from everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from playwright.sync_api import expect

from prognosis_dask.prediction.page import show_case
from tests.browser import chromium, needs_browser, new_context

pytestmark = needs_browser


@pytest.mark.parametrize("webgl", [True, False])
def test_image_and_mask_are_shown_without_a_network_and_as_a_picture_without_webgl(tmp_path: Path, webgl: bool) -> None:
    values = np.random.default_rng(1).normal(40, 60, (12, 40, 48)).astype(np.int16)
    inside = np.zeros(values.shape, np.uint8)
    inside[4:9, 12:20, 10:30] = 1
    image, mask = sitk.GetImageFromArray(values), sitk.GetImageFromArray(inside)
    for one in (image, mask):
        one.SetSpacing((0.9, 0.9, 3.0))
    cell = show_case(image, mask)._repr_html_()
    (tmp_path / "cell.html").write_text(f"<!DOCTYPE html><html><body>{cell}</body></html>", encoding="utf-8")
    options = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    with chromium(*(options if webgl else ("--disable-gpu", "--disable-3d-apis"))) as browser:
        page = new_context(browser).new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "cell.html").as_uri())
        view = page.frame_locator("iframe")
        if webgl:
            expect(view.locator("#volume")).to_have_attribute("data-ready", "yes")
            expect(view.locator("#slice-image")).to_be_hidden()
            expect(view.locator("#volume")).to_have_attribute("data-voxel", "19 15 4")
            view.get_by_role("button", name="Lung").click()
            expect(view.locator("#centre")).to_have_value("-600")
        else:
            expect(view.locator("#slice-image")).to_be_visible()
            expect(view.locator("#volume")).to_be_hidden()
        assert [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))] == []


def test_a_large_image_is_thinned_and_the_view_says_so() -> None:
    values = np.random.default_rng(1).normal(40, 60, (20, 160, 160)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    mask = sitk.GetImageFromArray(np.ones(values.shape, np.uint8))
    for one in (image, mask):
        one.SetSpacing((0.9, 0.9, 3.0))
    whole, thin = (len(show_case(image, mask, most_voxels=most).html) for most in (512_000, 128_000))
    assert 0.15 < (whole - thin) / (2 * 384_000 * 4 / 3) < 1.1  # 384,000 voxels fewer, compressed
    assert "one in 2, 2 and 1" in show_case(image, mask, most_voxels=128_000).html
