"""Seconds per case of pyradiomics' execute() on the full images and of ours on the crop, and how far they differ.

    python -m benchmarks.radiomics [FOLDER] [--repeats 5] [--params jobs/params/lung1.yaml] [--filters]

FOLDER holds ``lung1_002`` and ``pyradiomics``; without it PROGNOSIS_TEST_DATA, else ../shared/data. Both run on one
thread, in one process, in turn. The crop's margin is the default job's. ``--filters`` adds LoG and wavelet.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import SimpleITK as sitk
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.imaging.crop import crop_roi
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.job import CohortSection, ImageSection
from prognosis_dask.radiomics import RadiomicsParams, column_names, extract, read_params

ROOT = Path(__file__).resolve().parents[1]
FILTERS = {"Original": {}, "LoG": {"sigma": [1.0, 3.0]}, "Wavelet": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = ROOT.parent / "shared" / "data"
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("PROGNOSIS_TEST_DATA", beside)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--params", default=str(ROOT / "jobs" / "params" / "lung1.yaml"))
    parser.add_argument("--filters", action="store_true")
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    params = read_params(arguments.params)
    if arguments.filters:
        params = RadiomicsParams(json.dumps({**params.content, "imageType": FILTERS}))
    print(f"{len(column_names(params))} features, median of {arguments.repeats}")
    print(
        f"{'case':10} {'full image':>13} {'crop':>13} {'mask':>8} {'execute s':>10} {'ours s':>8} {'ratio':>6}  apart"
    )
    with tempfile.TemporaryDirectory() as work:
        for case in find_cases(arguments.folder, Path(work)):
            compare(case, params, arguments.repeats)


def find_cases(folder: Path, work: Path) -> list[Case]:
    index_cohort([folder / "lung1_002"], work, CohortSection(collection="lung1"))
    return [
        *read_cases(work / "cases.csv"),
        *(nrrd_case(folder / "pyradiomics", name) for name in ("brain1", "breast1")),
    ]


def nrrd_case(folder: Path, name: str) -> Case:
    return Case(name, name, "MR", "label", str(folder / f"{name}_image.nrrd"), str(folder / f"{name}_label.nrrd"))


def compare(case: Case, params: RadiomicsParams, repeats: int) -> None:
    """Time both in turn. Setting up pyradiomics' extractor, once for a cohort, is not counted."""
    full = load_roi(case, ImageSection(), full=True)
    crop = crop_roi(full, ImageSection().margin_mm)
    extractor = RadiomicsFeatureExtractor(params.content)
    loads: list[Roi] = []

    def load() -> Roi:
        loads.append(full)
        return full

    theirs, ours = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        expected = extractor.execute(full.image, full.mask)
        middle = time.perf_counter()
        values = extract(crop, params, load)
        theirs.append(middle - start)
        ours.append(time.perf_counter() - middle)
    different = max(relative(value, float(expected[name])) for name, value in values.items())
    seconds = statistics.median(theirs), statistics.median(ours)
    print(
        f"{case.patient_id:10} {shape(full.image):>13} {shape(crop.image):>13} "
        f"{int(sitk.GetArrayViewFromImage(full.mask).sum()):>8} {seconds[0]:>10.3f} {seconds[1]:>8.3f} "
        f"{seconds[0] / seconds[1]:>6.1f}  {different:g}{' (from the full image)' if loads else ''}"
    )


def relative(value: float, expected: float) -> float:
    if value == expected or (math.isnan(value) and math.isnan(expected)):
        return 0.0
    return abs(value - expected) / abs(expected) if expected else math.inf


def shape(image: sitk.Image) -> str:
    return "x".join(map(str, image.GetSize()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
