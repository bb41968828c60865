"""Seconds from the first byte of an upload to its result, over HTTP, with two warm workers.

    python -m benchmarks.serve [FOLDER]

FOLDER holds the real data (default: PROGNOSIS_TEST_DATA, else ../shared/data beside the checkout). LUNG1-002 goes in as
a zip of its CT and RTSTRUCT, brains as NIfTI, to small models of synthetic patients. Each scan is sent three times; the
first does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.web.settings import Settings
from tests.served import Browser, running, zipped
from tests.served_models import make_grade_run, make_survival_run

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("PROGNOSIS_TEST_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    data: Path = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as made, connect(LocalSpec(workers=2)) as client:
        folder = Path(made)
        models = [make_survival_run(folder / "lung"), make_grade_run(folder / "grade")]
        brains = sorted((data / "brain").glob("TCGA-02-0054_*.nii.gz"))
        scans = {
            "LUNG1-002, CT and RTSTRUCT": ("lung-demo", [zipped(data / "lung1_002", folder / "lung1.zip")]),
            "LGG-203, T2 without skull, no mask": ("grade-demo", [data / "brain" / "smooth_LGG-203_T2.nii.gz"]),
            "TCGA-02-0054, four sequences, no mask": ("grade-demo", brains),
        }
        with running(client, models, Settings(folder / "served")) as server:
            browser = Browser(server.port)
            browser.get("/")
            print("| scan | upload to result, s |\n|---|---|")
            for name, (model, files) in scans.items():
                sent = [("images", path.name, path.read_bytes()) for path in files]
                seconds = [_seconds(browser, model, sent) for _ in range(ROUNDS)]
                print(f"| {name} | {statistics.median(seconds[1:]):.1f} |", flush=True)


def _seconds(browser: Browser, model: str, files: list[tuple[str, str, bytes]]) -> float:
    started = time.monotonic()
    scan = browser.upload(model, files)
    state = browser.wait(scan, 600)
    if state != "done":
        raise SystemExit(f"{state}: {browser.get(scan).message}")
    return time.monotonic() - started


if __name__ == "__main__":
    main()
