"""Preparing MR of the head: seconds and memory per case, and how well masks found on different sequences agree.

    python -m benchmarks.brain [DATA]

DATA is the folder of real data (default: ../shared/data). Each case runs in a process of its own, on one thread.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.preprocess import kind_of, preprocess
from prognosis_dask.brain.register import rigid
from prognosis_dask.brain.strip import strip
from prognosis_dask.config.job import BrainSection
from prognosis_dask.imaging.geometry import one_thread

SEQUENCES = ("T1", "T1c", "T2", "FLAIR")

Images = dict[str, sitk.Image]


def glioma(data: Path) -> Images:
    """Four sequences with slices of 6.5 mm."""
    return {name: sitk.ReadImage(str(data / "brain" / f"TCGA-02-0054_{name}.nii.gz")) for name in SEQUENCES}


def stripped(data: Path) -> Images:
    """One sequence, 256 x 256 x 48, that came without skull."""
    return {"T2": sitk.ReadImage(str(data / "brain" / "smooth_LGG-203_T2.nii.gz"))}


def made(data: Path) -> Images:
    """Four sequences of 256 x 256, cut to 48 slices where there are more."""
    from prognosis_dask.synthetic.brain import make_scan
    from prognosis_dask.synthetic.patient import draw_brain_patient

    scan = make_scan(draw_brain_patient(2, seed=0, signal=1.0), 256)
    return {name: sequence.image[:, :, -48:] for name, sequence in scan.sequences.items()}


def measure(make: Callable[[Path], Images], data: Path) -> dict[str, Any]:
    """Prepare one case; its figures."""
    images = make(data)
    sizes = " ".join(f"{name} {'x'.join(map(str, image.GetSize()))}" for name, image in images.items())
    Path("/proc/self/clear_refs").write_text("5")
    wall, cpu = time.perf_counter(), time.process_time()
    done = preprocess(images, BrainSection())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    return {
        "sizes": sizes,
        "wall": wall,
        "cpu": cpu,
        "mb": int(status) / 1000,
        "before": done.stripped_before,
        **done.quality,
    }


def agreement(data: Path) -> dict[str, float]:
    """Dice of the glioma patient's masks, each found on its sequence alone, on T1's grid after registration."""
    images = {name: sitk.Cast(image, sitk.sitkFloat32) for name, image in glioma(data).items()}
    masks = {}
    with one_thread():
        for name, image in images.items():
            turn = rigid(images["T1"], image)[0] if name != "T1" else sitk.Euler3DTransform()
            brain = strip(image, kind_of(name)).brain
            masks[name] = sitk.GetArrayFromImage(sitk.Resample(brain, images["T1"], turn, sitk.sitkNearestNeighbor)) > 0
    return {
        f"{one} and {other}": 2 * np.count_nonzero(masks[one] & masks[other]) / (masks[one].sum() + masks[other].sum())
        for one, other in itertools.combinations(SEQUENCES, 2)
    }


def main() -> None:
    """Measure and print."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("../shared/data")
    print("| case | wall s | CPU s | peak MB | brain l | overlap with template | stripping |")
    print("|---|---|---|---|---|---|---|")
    for make in (glioma, stripped, made):
        # a fresh process each: peak memory is the process's
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(measure, make, data).result()
        # no edge is fitted to a network's mask
        fit = "" if np.isnan(row["boundary_fit"]) else f"edge contrast {row['boundary_fit']:.2f}"
        print(
            f"| {make.__name__}: {row['sizes']} | {row['wall']:.1f} | {row['cpu']:.1f} | {row['mb']:.0f} | "
            f"{row['brain_volume_l']:.2f} | {row['template_overlap']:.3f} | "
            f"{'done before' if row['before'] else fit or 'by the network'} |"
        )
    print("\n| masks found on each sequence alone | Dice |\n|---|---|")
    for name, value in agreement(data).items():
        print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    main()
