"""Ours, pyradiomics' own command line, and the reference study's chain, on the same cases in one run.

    python -m benchmarks.beside [--cases 8] [--workers 2] [--data FOLDER]

LUNG1-002 (FOLDER/lung1_002; default: PROGNOSIS_TEST_DATA, else ../shared/data beside the checkout), so many times, with
the parameters of jobs/params/lung1.yaml. What each is timed for:

* **ours**: DICOM and RTSTRUCT to radiomics and network features in zarr, with warm workers (``prognosis bench``);
  once with the network and once without.
* **pyradiomics -j**: NRRD to radiomics in CSV. The NRRD files are made before the clock starts. From two runs, one with
  fewer cases, so that starting the interpreters does not count.
* **the study's chain**, our re-creation of its steps from their description (Chen et al., Medical Physics 2023), one
  patient after the other in one process, as published: read the whole series, fill the mask, write both as compressed
  NRRD; ``execute()`` of pyradiomics on these full images; write the frames as a video, each slice held for 25 video
  frames, and read every 25th back; GluonCV's I3D as it comes, not hybridised, one clip at a time, with as many threads
  as cores. The first patient is left out. Weights are untrained everywhere: they do not change the time.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.config.job import CohortSection, FramesSection, ImageSection, load_job
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi, make_frames
from prognosis_dask.networks import gluon_import
from prognosis_dask.networks.clips import ClipRule
from prognosis_dask.workflows.bench import sweep

ROOT = Path(__file__).resolve().parents[1]
PARAMS = ROOT / "jobs" / "params" / "lung1.yaml"
#: Video frames that show one slice.
HELD = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=os.environ.get("PROGNOSIS_TEST_DATA", ROOT.parent / "shared/data"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index_cohort([options.data / "lung1_002"], folder, CohortSection(collection="lung1"))
        (case,) = read_cases(folder / "cases.csv")
        print("| what | from, to | s a patient |\n|---|---|---|", flush=True)
        for network in (True, False):
            seconds = ours(folder, options.cases, options.workers, network)
            to = "radiomics and network" if network else "radiomics"
            print(f"| ours, {options.workers} workers | DICOM to {to} | {seconds:.2f} |", flush=True)
        seconds = pyradiomics_cli(case, folder, options.cases, options.workers)
        print(f"| pyradiomics -j {options.workers} | NRRD to radiomics | {seconds:.2f} |", flush=True)
        steps = study_chain(case, folder, options.cases)
        parts = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())
        print(f"| the study's chain | DICOM to radiomics and network ({parts}) | {sum(steps.values()):.2f} |")


def ours(folder: Path, cases: int, workers: int, network: bool) -> float:
    overrides = [f"cohort.cases={folder / 'cases.csv'}", "deep.weights=untrained:1"]
    job = load_job(ROOT / "jobs" / "lung1.toml", [*overrides, f"deep.enabled={str(network).lower()}"])
    out = folder / f"ours-{network}"
    _, (run,) = sweep(job, out, virtual=cases, workers=[workers], cases_per_task=[0], say=lambda line: None)
    return run.seconds / run.cases


def pyradiomics_cli(case: Case, folder: Path, cases: int, jobs: int) -> float:
    image, mask = _write_nrrd(load_roi(case, ImageSection(), full=True), folder, compressed=False)

    def seconds(number: int) -> float:
        table = folder / "batch.csv"
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows([("Image", "Mask"), *[(image, mask)] * number])
        command = [str(Path(sys.executable).with_name("pyradiomics")), str(table), "--param", str(PARAMS)]
        command += ["--jobs", str(jobs), "--format", "csv", "--out", str(folder / "pyradiomics.csv")]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    seconds(jobs)  # fills the disk cache
    return (seconds(jobs + cases) - seconds(jobs)) / cases


def study_chain(case: Case, folder: Path, cases: int) -> dict[str, float]:
    """Mean seconds per step and patient."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    logging.getLogger("radiomics").setLevel(logging.ERROR)
    network, array = _plain_network()
    steps: dict[str, float] = {}
    for patient in range(cases + 1):
        clock = _clock(steps if patient else {})
        with clock("mask and NRRD"):
            image, mask = _write_nrrd(_whole(case), folder, compressed=True)
        with clock("radiomics"):
            RadiomicsFeatureExtractor(str(PARAMS)).execute(str(image), str(mask))
        with clock("video"):
            frames = _through_a_video(_frames(image, mask), folder / "clip.mp4")
        with clock("network"):
            network(array(ClipRule().make(frames)[None])).asnumpy()
    return {step: seconds / cases for step, seconds in steps.items()}


def _whole(case: Case) -> Roi:
    """The mask by our polygon fill, the image by SimpleITK's reader of whole series."""
    roi = load_roi(case, ImageSection(), full=True)
    listing = read_listing(case.image)
    image = sitk.ReadImage([str(Path(listing.root) / one.file) for one in listing.slices])
    return Roi(image, roi.mask, roi.full, roi.start)


def _frames(image: Path, mask: Path) -> Any:
    one, other = sitk.ReadImage(str(image)), sitk.ReadImage(str(mask))
    roi = Roi(one, other, _grid(one), (0, 0, 0))
    return make_frames(roi, FramesSection(placement="reference"), "CT").pixels


def _grid(image: sitk.Image) -> Any:
    from prognosis_dask.volumes.grid import Grid

    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def _write_nrrd(roi: Roi, folder: Path, *, compressed: bool) -> tuple[Path, Path]:
    image, mask = folder / "image.nrrd", folder / "mask.nrrd"
    sitk.WriteImage(roi.image, str(image), useCompression=compressed)
    sitk.WriteImage(roi.mask, str(mask), useCompression=compressed)
    return image, mask


def _through_a_video(frames: Any, path: Path) -> Any:
    import imageio.v3 as iio

    colour = np.repeat(np.repeat(frames, HELD, axis=0)[..., None], 3, axis=3)
    iio.imwrite(path, colour, plugin="pyav", codec="libx264", fps=HELD)
    read = [frame for number, frame in enumerate(iio.imiter(path, plugin="pyav")) if number % HELD == 0]
    return np.ascontiguousarray(np.stack(read)[..., 0])


def _plain_network() -> tuple[Any, Callable[[Any], Any]]:
    os.environ["MXNET_OMP_MAX_THREADS"] = str(os.cpu_count())
    with gluon_import._numpy_bool(), gluon_import._without_torch():
        import gluoncv
        import mxnet as mx
    network = gluoncv.model_zoo.get_model("i3d_inceptionv1_kinetics400", pretrained=False, pretrained_base=False)
    return network, lambda clip: mx.nd.from_numpy(clip, zero_copy=False)


def _clock(seconds: dict[str, float]) -> Any:
    @contextmanager
    def step(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started

    return step


if __name__ == "__main__":
    main()
