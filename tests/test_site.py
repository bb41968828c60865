"""The documentation's site: every page has its place, every link and anchor leads somewhere, nothing is fetched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prognosis_dask
from tests.browser import chromium, complaints, needs_browser, new_context

pytest.importorskip("mkdocs", reason="the group docs is not installed")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning ends the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, ROOT / "tools" / "site.py", folder]
    built = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (built.returncode, "WARNING" in built.stderr) == (0, False), built.stderr
    return folder


def test_the_site_is_built_without_a_warning_and_documents_all_that_a_notebook_calls(site: Path) -> None:
    page = (site / "docs" / "api.html").read_text(encoding="utf-8")
    for name in set(prognosis_dask.__all__) - {"__version__"}:
        assert re.search(rf'<h2 id="[\w.]*\.{name}"', page), name


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r'<(?:script|img|link)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"')
    found = {page.name: fetched.findall(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert not any(found.values()), found


@needs_browser
def test_axe_finds_nothing_on_a_page_with_code_and_tables(site: Path) -> None:
    with chromium() as browser:
        page = new_context(browser).new_page()
        page.goto((site / "docs" / "features.html").as_uri())
        assert complaints(page) == []
        page.goto((site / "index.html").as_uri())
        assert complaints(page) == []
