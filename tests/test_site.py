"""The documentation's site: every page has its place, every link and anchor leads somewhere, nothing is fetched."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import prognosis_dask
from tests.browser import chromium, complaints, needs_browser, new_context

pytest.importorskip("mkdocs", reason="the group docs is not installed")
nbformat = pytest.importorskip("nbformat", reason="the group docs is not installed")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning ends the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, ROOT / "tools" / "site.py", "--quick", folder]
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


def builder() -> ModuleType:
    """tools/site.py, whose name is that of a module of Python."""
    spec = importlib.util.spec_from_file_location("builder", ROOT / "tools" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "shows", "draws"),
    [
        ("somebodys_table", r"week and arrest[\s\S]+'c_index_cv': 0\.6\d[\s\S]+the table lacks 1 of the 7 columns", ""),
        pytest.param("ct_survival", r"'n_cases': 30,[\s\S]+risk_score", "kaplan_meier", marks=pytest.mark.slow),
        pytest.param("brain_grade", r"'brain_volume_l'[\s\S]+probability_3", "forest", marks=pytest.mark.slow),
    ],
)
def test_a_notebook_runs_and_its_page_and_the_gallery_show_what_came_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shows: str, draws: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the kernel, which runs in a folder of its own
    notebook = Path(shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path))
    site = builder()
    site.write_page(notebook, site.executed(nbformat.read(notebook, as_version=4), tmp_path / name))
    page = notebook.with_suffix(".md").read_text(encoding="utf-8")
    assert re.search(shows, page)
    assert str(tmp_path) not in page
    assert all(picture.name in page for picture in tmp_path.glob("*.png"))
    site.write_gallery(tmp_path, [tmp_path / Path(*at) for at in site.SHOWN])
    gallery = (tmp_path / "gallery.md").read_text(encoding="utf-8")
    assert all(picture.name in gallery for picture in tmp_path.glob("gallery/*.svg"))
    assert not draws or f"{name}-{draws}.svg" in gallery


def test_the_first_hour_shows_the_commands_that_its_script_runs() -> None:
    page = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
    for number, task in enumerate(importlib.import_module("tools.first_hour").TASKS, 2):
        commands = "\n".join(task.commands)
        assert f"## {number}. {task.title}\n\n```sh\n{commands}\n```" in page
    assert page.count("of processor time") == 10


def test_notebooks_are_kept_without_what_came_out() -> None:
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        text = notebook.read_text(encoding="utf-8")
        assert '"output_type"' not in text
        assert len(text) < 50_000
