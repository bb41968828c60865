"""Skull strip on real heads, without and with the network: Dice, surface distance, what is lost, seconds, memory.

    python -m benchmarks.brain_strip [--data DATA] [--methods template,deepbet] [NAME ...]

Each head runs in a process of its own, on one thread; its reference is HD-BET's mask, or deepbet's own (p04).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import SimpleITK as sitk

from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.preprocess import kind_of
from prognosis_dask.brain.strip import strip
from prognosis_dask.brain.tools import strip_with
from prognosis_dask.imaging.geometry import one_thread
from tests.heads import WITH_MASK, apart_mm, lost_ml, overlap, read_head, read_mask


def measure(data: Path, name: str, method: str) -> str:
    """Strip one head; its row of the table."""
    image = axial(read_head(data, name))
    Path("/proc/self/clear_refs").write_text("5")
    cpu = time.process_time()
    with one_thread():
        brain = strip(image, kind_of(name.split("_")[-1])).brain if method == "template" else strip_with(method, image)
    cpu = time.process_time() - cpu
    mb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
    truth = read_mask(data, name, image)
    brain = sitk.Cast(brain, sitk.sitkUInt8)
    return (
        f"| {name} | {method} | {overlap(brain, truth):.3f} | {apart_mm(brain, truth):.1f} | "
        f"{lost_ml(brain, truth):.0f} | {cpu:.1f} | {mb:.0f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(WITH_MASK))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", default="template,deepbet")
    given = parser.parse_args()
    print("| head | method | Dice | HD95, mm | lost, ml | CPU s | peak MB |\n|---|---|---|---|---|---|---|")
    for name in given.names:
        for method in given.methods.split(","):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                print(pool.submit(measure, given.data, name, method).result(), flush=True)


if __name__ == "__main__":
    main()
