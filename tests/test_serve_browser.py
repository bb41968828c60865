"""One scan in a browser: a headless Chromium at `prognosis serve`, as a clinician would use it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from prognosis_dask.config.job import SynthSection
from prognosis_dask.synthetic import make_cohort
from tests import browser
from tests.browser import PATIENCE_MS, complaints, needs_browser, new_context
from tests.dask_processes import wait_for
from tests.served import zipped
from tests.served_models import make_grade_run, make_survival_run

pytestmark = [pytest.mark.slow, needs_browser]
WORKERS = 2
LUNG, GRADE, CLINIC = (f"{name} demo: synthetic patients" for name in ("Lung", "Grade", "Clinic"))


def lasting_port() -> int:
    """A free port that is still free after a restart: the system gives those from 32768 on to whoever connects."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports are taken")


@dataclass
class Server:
    """``prognosis serve`` as a process of its own, which can be killed and started again on its folder and port."""

    folder: Path
    models: tuple[Path, ...]
    port: int = field(default_factory=lasting_port)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        models = [word for model in self.models for word in ("--model", str(model))]
        cluster = self.folder / "cluster.toml"
        cluster.write_text(f'kind = "local"\nworkers = {WORKERS}\ndashboard = "127.0.0.1:0"\n')
        command = [sys.executable, "-m", "prognosis_dask", "serve", *models, "--port", str(self.port)]
        command += ["--cluster", str(cluster)]
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--out", str(self.folder / "served")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self.process.stdout
        for line in self.process.stdout:
            if line == f"{self.address}/\n":
                return
        raise AssertionError((self.folder / "log.txt").read_text())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No scan goes on meanwhile, however long the browsers take."""
        assert self.process
        paused = []
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "resource_tracker" not in " ".join(one.cmdline()):
                    one.suspend()
                    paused.append(one)
        try:
            yield
        finally:
            for one in paused:
                with suppress(psutil.NoSuchProcess):
                    one.resume()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self._close()

    def stop(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGINT)
        self._close()

    def _close(self) -> None:
        assert self.process
        assert self.process.stdout
        self.process.wait()
        self.process.stdout.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    clinic = make_survival_run(folder / "clinic", job="clinic demo", clinical=True)
    server = Server(folder, (make_survival_run(folder / "lung"), make_grade_run(folder / "grade"), clinic))
    server.start()
    yield server
    server.stop()
    log = (folder / "log.txt").read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as opened:
        yield opened


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    """A visitor of his own, whose browser refuses nothing and misses nothing."""
    context = new_context(chromium)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.address)
    yield page
    # a page that looks for a server in the middle of a restart says so in the console, as does a refused form; and the
    # software driver of a machine without a graphics processor says that reading a pixel is slow
    assert [
        text
        for text in complaints
        if not re.search(
            r"ERR_(CONNECTION|EMPTY|SOCKET|INCOMPLETE|CONTENT)|status of 4\d\d|GL Driver Message \(OpenGL, Performance",
            text,
        )
    ] == []
    context.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    cohort = make_cohort(folder, SynthSection(patients=1, seed=5, bad_cases=False))
    return zipped(cohort.images, folder / "scan.zip")


@pytest.fixture(scope="module")
def lung1(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zipped(shared_data / "lung1_002", tmp_path_factory.mktemp("lung1") / "LUNG1-002.zip")


def send(page: Page, model: str, *files: Path, roi: str = "") -> None:
    page.get_by_label(re.compile(model)).check()
    page.get_by_label("Name of the structure").fill(roi)
    page.get_by_label("Images", exact=True).set_input_files(list(files))
    page.get_by_role("button", name="Upload").click()


def until_result(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Result", timeout=PATIENCE_MS)
    # a key that is pressed before the page's script has run is lost
    page.wait_for_load_state("load", timeout=PATIENCE_MS)


def test_lung1_002_from_upload_to_result(page: Page, lung1: Path) -> None:
    send(page, LUNG, lung1)
    page.wait_for_url("**/scans/*", timeout=PATIENCE_MS)
    until_result(page)
    assert page.get_by_text("risk group", exact=True).count() == 1
    assert "CT, GTV-1" in page.inner_text(".lead")
    for name in ("Survival of the training cases", "score among those of the training cases"):
        image = page.get_by_alt_text(re.compile(name))
        assert image.evaluate("i => i.decode().then(() => i.naturalWidth > 100)")
    assert page.get_by_role("table").first.inner_text().count("\n") >= 6
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as JSON").click()
    told = json.loads(Path(download.value.path()).read_text())
    # volume by the reference implementation's voxel count is 358.27 ml (mesh); voxels make it 358.5
    assert told["quality"]["volume"] == {"value": pytest.approx(358.5, abs=0.2), "unit": "mL"}
    assert "LUNG1-002" not in page.content()


def test_a_folder_is_uploaded_as_it_lies_and_files_may_be_dropped(page: Page, made: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "study")
    (tmp_path / "study" / ".hidden").write_text("not an image")
    files = [file for file in (tmp_path / "study").rglob("*") if file.is_file() and file.name != ".hidden"]
    with page.expect_file_chooser() as asked:
        page.get_by_role("button", name="Choose a folder").click()
    asked.value.set_files(tmp_path / "study")
    expect(page.get_by_role("status")).to_have_text(f"{len(files)} files to send.")
    held = page.evaluate("""() => {
      const dropped = new DataTransfer();
      for (const name of ["1.dcm", "2.dcm", "DICOMDIR"]) dropped.items.add(new File(["x"], name));
      const form = document.getElementById("upload"), images = document.getElementById("images");
      const chosen = images.files;
      form.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
      const put_back = (done) => { const n = images.files.length; images.files = chosen; done(n); };
      return new Promise((done) => setTimeout(put_back, 500, done));
    }""")
    assert held == 2
    page.get_by_label(re.compile(LUNG)).check()
    page.get_by_label("Name of the structure").fill("GTV-1")
    page.get_by_role("button", name="Upload").click()
    until_result(page)
    expect(page.get_by_role("button", name="Print, or save as PDF")).to_be_visible()


def test_the_slices_are_looked_through_with_the_keyboard(page: Page, lung1: Path) -> None:
    send(page, LUNG, lung1)
    until_result(page)
    image, slider = page.locator("#slice-image"), page.get_by_role("slider", name="Slice")
    first = image.get_attribute("alt") or ""
    assert re.fullmatch(r"Slice \d+ of 111, with the outline of the structure", first)
    slider.focus()
    page.keyboard.press("ArrowRight")
    at = int(first.split()[1]) + 1
    expect(image).to_have_attribute("alt", f"Slice {at} of 111, with the outline of the structure")
    page.get_by_label("Outline of the structure").focus()
    page.keyboard.press("Space")
    expect(image).to_have_attribute("alt", f"Slice {at} of 111")
    expect(image).not_to_have_attribute("src", re.compile("outline"))
    page.get_by_role("button", name="Lung").press("Enter")
    expect(image).to_have_attribute("src", re.compile(r"centre=-600&width=1500"))
    page.get_by_label("Window (HU)").fill("800")
    expect(image).to_have_attribute("src", re.compile(r"width=800"))
    expect(image).to_have_js_property("naturalWidth", 512)


def test_the_downloaded_page_works_by_itself(page: Page, made: Path, tmp_path: Path) -> None:
    send(page, LUNG, made, roi="GTV-1")
    until_result(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as one HTML file").click()
    download.value.save_as(tmp_path / "scan.html")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "scan.html").as_uri())
    shown = page.locator(".pair:visible")
    before = shown.get_attribute("data-index")
    page.get_by_role("slider", name="Slice").focus()
    page.keyboard.press("End")
    assert shown.get_attribute("data-index") != before
    assert page.locator(".over:visible").count() == 1
    page.get_by_label("Outline of the structure").uncheck()
    assert page.locator(".over:visible").count() == 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_brain_scan_from_upload_to_result(page: Page, shared_data: Path) -> None:
    send(page, GRADE, shared_data / "brain" / "smooth_LGG-203_T2.nii.gz")
    page.wait_for_url("**/scans/*")
    expect(page.locator("[data-step=brain]")).to_be_visible(timeout=PATIENCE_MS)
    until_result(page)
    assert page.get_by_text("most probable class").count() == 1
    assert page.locator(".warnings").get_by_text("The tumour was found automatically").count() == 1
    for name in ("Mosaic of the slices", "before and after"):
        assert page.get_by_alt_text(re.compile(name)).evaluate("i => i.decode().then(() => i.naturalWidth > 100)")
    assert page.get_by_role("rowheader", name="volume", exact=True).count() > 0
    for width in (320, 390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_clinical_values_are_asked_for_by_the_chosen_model_alone(page: Page, made: Path) -> None:
    values = page.get_by_role("group", name=re.compile("Clinical values for this model"))
    expect(values).to_have_count(0)  # hidden from screen readers too
    page.get_by_label(re.compile(LUNG)).focus()
    page.keyboard.press("ArrowUp")  # the last of the models, by the keyboard
    expect(page.get_by_label(re.compile(CLINIC))).to_be_checked()
    expect(values).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.get_by_role("textbox", name=re.compile("^age"))).to_be_focused()
    page.keyboard.type("seventy")
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="histology")).to_be_focused()
    page.keyboard.type("large")
    page.get_by_label("Name of the structure").fill("GTV-1")
    page.get_by_label("Images", exact=True).set_input_files(made)
    page.get_by_role("button", name="Upload").press("Enter")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("age is 'seventy', expected a number", timeout=PATIENCE_MS)
    page.get_by_role("textbox", name=re.compile("^age")).fill("70")
    page.get_by_role("button", name="Upload").press("Enter")
    until_result(page)
    rows = page.get_by_role("region", name="Clinical values").get_by_role("row")
    assert [row.inner_text().split("\t") for row in rows.all()[1:]] == [["age", "70"], ["histology", "large cell"]]
    assert page.get_by_text("Not known of this scan").count() == 0


def test_a_structure_is_chosen_where_there_are_several(page: Page, made: Path) -> None:
    send(page, LUNG, made)
    expect(page.get_by_role("heading", level=1)).to_have_text("Which structure?", timeout=PATIENCE_MS)
    page.get_by_label("GTV-1 on CT").check()
    page.get_by_role("button", name="Go on").click()
    until_result(page)
    assert "GTV-1" in page.inner_text(".lead")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"no image", "No image in 1 file: expected DICOM"),
        ("cut.zip", b"PK\x03\x04" + bytes(60), "The archive is damaged"),
        ("torn.dcm", bytes(128) + b"DICM" + bytes(range(256)) * 4, "nreadable file"),
    ],
)
def test_a_bad_upload_ends_in_a_sentence(page: Page, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    send(page, LUNG, tmp_path / name)
    alert = page.locator("#message")
    expect(alert).to_contain_text(words, timeout=PATIENCE_MS)
    assert alert.get_attribute("role") == "alert"
    assert "Traceback" not in page.content()


def test_an_upload_that_is_refused_is_told_beside_the_form(page: Page, made: Path) -> None:
    page.evaluate("document.querySelector('#upload [name=form]').value = 'another'")
    send(page, LUNG, made)
    expect(page.locator("#problem")).to_contain_text("reload it", timeout=PATIENCE_MS)
    assert page.get_by_role("button", name="Upload").is_enabled()


def places(pages: list[Page]) -> list[int]:
    """The places in the queue that these pages tell."""
    told = [page.locator("#place").text_content() or "" for page in pages]
    return sorted(int(found[1]) for text in told if (found := re.search(r"place (\d+)", text)))


def test_ten_browsers_upload_at_once(chromium: Browser, server: Server, made: Path) -> None:
    contexts = [new_context(chromium) for _ in range(10)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.goto(server.address)
        page.get_by_label("Name of the structure").fill("GTV-1")
        page.get_by_label("Images", exact=True).set_input_files(made)
    with server.paused():
        for page in pages:  # nobody waits for the one before
            page.evaluate("document.getElementById('upload').requestSubmit()")
        for page in pages:
            page.wait_for_url("**/scans/*", timeout=PATIENCE_MS)
        # the others are at work, one on each worker
        wait_for(lambda: places(pages) == list(range(1, 11 - WORKERS)))
    for page in pages:
        until_result(page)
    addresses = {page.url for page in pages}
    assert len(addresses) == 10
    scores = {page.get_by_text("risk score (higher").locator("xpath=..").locator("dd").inner_text() for page in pages}
    assert len(scores) == 1
    pages[0].goto(server.address)
    assert pages[0].locator(".scans li").count() == 1  # each sees his own
    for context in contexts:
        context.close()


def test_a_restart_in_the_middle_loses_nothing(page: Page, server: Server, made: Path, lung1: Path) -> None:
    send(page, LUNG, made, roi="GTV-1")
    until_result(page)
    done = page.url
    page.goto(server.address)
    send(page, LUNG, lung1)
    page.wait_for_url("**/scans/*", timeout=PATIENCE_MS)
    with server.paused():
        expect(page.locator("[data-step=read]")).to_have_class(re.compile("running|done"))
        assert page.get_by_role("heading", level=1).inner_text() == "Working on the scan"
        server.kill()
    expect(page.locator("#place")).to_contain_text("does not answer", timeout=PATIENCE_MS)
    server.start()
    until_result(page)  # the open page finds it by itself
    state = json.loads((server.folder / "served" / "scans" / page.url.split("/")[-1] / "scan.json").read_text())
    assert state["restarts"] == 1
    page.goto(done)
    until_result(page)


def test_nothing_is_wider_than_the_page(page: Page, made: Path) -> None:
    def wide() -> list[int]:
        found = []
        for width in (320, 400, 1000):
            page.set_viewport_size({"width": width, "height": 800})
            found.append(page.evaluate("document.documentElement.scrollWidth"))
        return found

    assert wide() == [320, 400, 1000]
    send(page, LUNG, made, roi="GTV-1")
    until_result(page)
    assert wide() == [320, 400, 1000]


def test_every_control_has_a_name_and_every_page_its_landmarks(page: Page, made: Path) -> None:
    nameless = """[...document.querySelectorAll("input:not([type=hidden]), button, img:not([aria-hidden])")]
      .filter(e => !(e.alt || e.labels?.length || e.textContent.trim() || e.ariaLabel)).map(e => e.outerHTML)"""
    for _ in range(2):
        assert page.evaluate(nameless) == []
        assert page.locator("main").count() == 1
        assert page.get_by_role("heading", level=1).count() == 1
        assert page.locator("html").get_attribute("lang") == "en"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        if "/scans/" not in page.url:
            send(page, LUNG, made, roi="GTV-1")
            until_result(page)


def test_axe_finds_nothing_on_the_pages(page: Page, made: Path, tmp_path: Path) -> None:
    assert complaints(page) == []
    send(page, LUNG, made)
    expect(page.get_by_role("heading", level=1)).to_have_text("Which structure?", timeout=PATIENCE_MS)
    assert complaints(page) == []
    page.get_by_label("GTV-1 on CT").check()
    page.get_by_role("button", name="Go on").click()
    until_result(page)
    assert complaints(page) == []
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as one HTML file").click()
    download.value.save_as(tmp_path / "scan.html")
    page.goto((tmp_path / "scan.html").as_uri())
    assert complaints(page) == []


def test_the_steps_are_told_to_a_screen_reader(page: Page, server: Server, lung1: Path) -> None:
    send(page, LUNG, lung1)
    page.wait_for_url("**/scans/*", timeout=PATIENCE_MS)
    with server.paused():
        assert page.get_by_role("heading", level=1).inner_text() == "Working on the scan"
        assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    until_result(page)
