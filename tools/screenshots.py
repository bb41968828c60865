"""The pictures of `prognosis serve` in docs/serve.md: LUNG1-002 on a desk, a brain on a phone in the dark.

    python -m tools.screenshots [FOLDER]

FOLDER holds the real data (default: ../shared/data beside the checkout); the models are those of the tests, of made
patients. Needs chromium.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.browser import chromium, new_context
from tests.served import zipped
from tests.served_models import make_grade_run, make_survival_run

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Take both pictures."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    with tempfile.TemporaryDirectory() as folder:
        models = make_survival_run(Path(folder, "lung")), make_grade_run(Path(folder, "grade"))
        lung = zipped(data / "lung1_002", Path(folder, "scan.zip"))
        with served(Path(folder), *models) as address, chromium("--hide-scrollbars") as browser:
            take(browser, address, "Lung demo", lung, ROOT / "docs" / "serve_ct.png", width=1280, height=1500)
            head = data / "brain" / "smooth_LGG-203_T2.nii.gz"
            take(
                browser,
                address,
                "Grade demo",
                head,
                ROOT / "docs" / "serve_brain.png",
                width=390,
                height=1700,
                dark=True,
            )


@contextmanager
def served(folder: Path, *models: Path) -> Iterator[str]:
    """The address of a server with these models."""
    named = [word for model in models for word in ("--model", str(model))]
    command = [sys.executable, "-m", "prognosis_dask", "serve", *named, "--port", "0", "--out", str(folder / "served")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line.strip() for line in process.stdout if re.fullmatch(r"http://\S+/\n", line))
        finally:
            process.terminate()


def take(
    browser: Browser, address: str, model: str, scan: Path, out: Path, *, width: int, height: int, dark: bool = False
) -> None:
    """Send a scan and take a picture of its result, from the top down to ``height``."""
    page: Page = new_context(browser).new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.goto(address)
    page.get_by_label(re.compile(model)).check()
    page.get_by_label("Images", exact=True).set_input_files(scan)
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("heading", level=1, name="Result").wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)  # what the viewer draws
    page.screenshot(path=out)
    print(out)


if __name__ == "__main__":
    main()
