"""Processor seconds of pyradiomics' execute() on the full images and of ours on the crop, and how far they differ.

    python -m benchmarks.radiomics [FOLDER] [--repeats 5] [--rows lung-study ...] [--peer PYTHON ...]
    python -m benchmarks.radiomics --made 10000 [--first 0]

FOLDER holds ``lung1_002`` and ``pyradiomics``; without it PROGNOSIS_TEST_DATA, else ../shared/data. Both run on one
thread, in one process, in turn; medians. The crop's margin is the default job's. ``--made`` compares synthetic images,
masks and settings, each from its number alone, with ``execute()``, and prints those that differ in any bit. With
``--peer``, the interpreter of an environment with pictologics or fastrad, the first five rows are measured there too,
and ended after ``--limit`` processor seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import statistics
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi, crop_roi
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.kernels import kernels
from prognosis_dask.radiomics.parameter_file import column_names, read_params
from prognosis_dask.radiomics.params import RadiomicsParams

ROOT = Path(__file__).resolve().parents[1]
ORIGINAL: dict[str, Any] = {"Original": {}}
LOG: dict[str, Any] = {"LoG": {"sigma": [1.0, 3.0]}}
FILTERS = ORIGINAL | LOG | {"Wavelet": {}}
#: Case, whether with the study's parameters (else pyradiomics' defaults), image types.
ROWS = {
    "lung-study": ("LUNG1-002", True, ORIGINAL),
    "lung-default": ("LUNG1-002", False, ORIGINAL),
    "brain-default": ("brain1", False, ORIGINAL),
    "lung-study-filters": ("LUNG1-002", True, FILTERS),
    "brain-filters": ("brain1", False, FILTERS),
    "breast-default": ("breast1", False, ORIGINAL),
    "lung-log": ("LUNG1-002", False, LOG),
    "lung-lbp2d": ("LUNG1-002", False, {"LBP2D": {}}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = ROOT.parent / "shared" / "data"
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("PROGNOSIS_TEST_DATA", beside)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--peer", action="append", default=[], metavar="PYTHON")
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--made", type=int, metavar="COUNT")
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 1)
    if arguments.made:
        compare_made(range(arguments.first, arguments.first + arguments.made))
        return
    print(f"compiled loops: {'yes' if kernels() else 'no'}; medians of {arguments.repeats}")
    print(
        f"{'row':20} {'full image':>12} {'mask':>7} {'features':>8} {'execute s':>10} {'ours s':>8} {'ratio':>6}  apart"
    )
    with tempfile.TemporaryDirectory() as work:
        cases = {case.patient_id: case for case in find_cases(arguments.folder, Path(work))}
        for row in arguments.rows:
            name, study, types = ROWS[row]
            params = params_of(types, study=study)
            full = compare(row, cases[name], params, arguments.repeats)
            for peer in arguments.peer if types in (ORIGINAL, FILTERS) else ():
                measure_peer(peer, full, params, Path(work) / "peer.npz", arguments.repeats, arguments.limit)


def params_of(types: dict[str, Any], *, study: bool) -> RadiomicsParams:
    params = read_params(str(ROOT / "jobs" / "params" / "lung1.yaml") if study else "")
    return RadiomicsParams(json.dumps({**params.content, "imageType": types}))


def find_cases(folder: Path, work: Path) -> list[Case]:
    index_cohort([folder / "lung1_002"], work, CohortSection(collection="lung1"))
    return [
        *read_cases(work / "cases.csv"),
        *(nrrd_case(folder / "pyradiomics", name) for name in ("brain1", "breast1")),
    ]


def nrrd_case(folder: Path, name: str) -> Case:
    return Case(name, name, "MR", "label", str(folder / f"{name}_image.nrrd"), str(folder / f"{name}_label.nrrd"))


def compare(row: str, case: Case, params: RadiomicsParams, repeats: int) -> Roi:
    """Time both in turn, without setting up pyradiomics' extractor, once for a cohort; give the full image."""
    full = load_roi(case, ImageSection(), full=True)
    crop = crop_roi(full, ImageSection().margin_mm)
    extractor = RadiomicsFeatureExtractor(params.content)
    loads: list[Roi] = []

    def load() -> Roi:
        loads.append(full)
        return full

    extract(crop, params, load)  # sets up ours
    loads.clear()
    theirs, ours = [], []
    for _ in range(repeats):
        start = time.process_time()
        expected = extractor.execute(full.image, full.mask)
        middle = time.process_time()
        values = extract(crop, params, load)
        theirs.append(middle - start)
        ours.append(time.process_time() - middle)
    # pyradiomics leaves local binary patterns out where scikit-image is not installed
    different = max(
        (relative(value, float(expected[name])) for name, value in values.items() if name in expected), default=math.nan
    )
    seconds = statistics.median(theirs), statistics.median(ours)
    print(
        f"{row:20} {shape(full.image):>12} {int(sitk.GetArrayViewFromImage(full.mask).sum()):>7} "
        f"{len(column_names(params)):>8} {seconds[0]:>10.3f} {seconds[1]:>8.4f} "
        f"{seconds[0] / seconds[1]:>6.1f}  {different:g}{' (from the full image)' if loads else ''}",
        flush=True,
    )
    return full


def measure_peer(python: str, full: Roi, params: RadiomicsParams, work: Path, repeats: int, limit: int) -> None:
    """Print a line for each other program that an environment has."""
    np.savez(
        work,
        image=sitk.GetArrayFromImage(full.image),
        mask=sitk.GetArrayFromImage(full.mask),
        spacing=full.image.GetSpacing(),
        bin_width=params.settings["binWidth"],
        resampled=(params.settings.get("resampledPixelSpacing") or [0])[0],
        filters="Wavelet" in params.content["imageType"],
    )
    script = str(ROOT / "benchmarks" / "radiomics_peer.py")
    done = subprocess.run(
        [python, script, str(work), str(repeats)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)),
    )
    found = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
    for name, one in found.items():
        ended = "failed" if done.returncode > 0 else f"more than {limit} s"
        seconds = f"{one['seconds']:>8.4f}" if "seconds" in one else ended
        print(f"    {name:28} {'':>10} {one.get('values', ''):>8} {'':>10} {seconds}", flush=True)
    if done.returncode > 0:
        print(f"    {python}: {done.stderr.strip().splitlines()[-1]}")


def compare_made(numbers: range) -> None:
    from tests.radiomics_cases import difference

    mismatches = 0
    for number in numbers:
        found = difference(number)
        mismatches += bool(found)
        if found:
            print(found, flush=True)
    print(f"{len(numbers)} synthetic images from number {numbers.start} on: {mismatches} differ from execute()")


def relative(value: float, expected: float) -> float:
    if value == expected or (math.isnan(value) and math.isnan(expected)):
        return 0.0
    return abs(value - expected) / abs(expected) if expected else math.inf


def shape(image: sitk.Image) -> str:
    return "x".join(map(str, image.GetSize()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
