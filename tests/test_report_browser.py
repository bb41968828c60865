"""The report in a browser: on a phone, on a desk, and its figures' files as a reader gets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from prognosis_dask.report.page import write_report
from tests.browser import chromium, complaints, needs_browser, new_context
from tests.report_models import make_models

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    make_models(folder / "models")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    with chromium() as browser:
        page = new_context(browser).new_page()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        page.on("request", lambda request: refused.append(request.url))
        page.goto((folder / "report.html").as_uri())
        assert [text for text in refused if not text.startswith(("data:", "file:"))] == []
        yield page


@pytest.mark.parametrize("width", [320, 400, 1000])
def test_nothing_is_wider_than_the_page(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    cut = """[...document.querySelectorAll("h1, h2, h3, p, figcaption, dd, dt, nav a")]
      .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
      .map(e => e.textContent)"""
    assert page.evaluate(cut) == []


def test_axe_finds_nothing(page: Page) -> None:
    assert complaints(page) == []


def test_every_figure_is_drawn(page: Page) -> None:
    sizes = page.evaluate(
        "[...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().height])"
    )
    assert len(sizes) > 10
    assert all(complete and width > 200 and height > 50 for complete, width, height in sizes)


def test_print_unfolds_the_tables_and_keeps_the_figures_size(page: Page) -> None:
    page.set_viewport_size({"width": 672, "height": 1000})  # A4 within the margins
    page.emulate_media(media="print")
    scales = page.evaluate("[...document.images].map(i => i.getBoundingClientRect().width / i.naturalWidth)")
    folded = page.evaluate("[...document.querySelectorAll('details table')].map(t => t.getBoundingClientRect().height)")
    page.emulate_media(media="screen")
    assert min(scales) > 0.85  # letters of 8 points stay 7
    assert folded
    assert min(folded) > 100


@pytest.mark.parametrize("name", ["calibration.csv", "kaplan_meier.svg"])
def test_a_figures_files_are_saved_by_a_click(page: Page, folder: Path, name: str) -> None:
    with page.expect_download() as started:
        page.locator(f'a[download="{name}"]').click()
    assert started.value.suggested_filename == name
    saved = Path(started.value.path()).read_text(encoding="utf-8")
    written = (folder / "figures" / name).read_text(encoding="utf-8")
    assert saved == written if name.endswith("csv") else saved.count("<path") == written.count("<path")
