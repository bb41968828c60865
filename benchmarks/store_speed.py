"""Milliseconds to open, write and read the store of ROIs: python -m benchmarks.store_speed [FOLDER]."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.storage.rois import RoiStore


def main(folder: Path) -> None:
    path, case_ids = folder / "rois.zarr", [f"CASE-{i:05d}_CT_GTV-1" for i in range(10_000)]
    rng = np.random.default_rng(0)
    pixels = (rng.normal(0, 30, (80, 180, 180)) + np.linspace(-1000, 400, 180)).astype(np.int16)
    mask = np.zeros(pixels.shape, np.uint8)
    mask[20:60, 60:120, 60:120] = 1
    image = sitk.GetImageFromArray(pixels)
    roi = Roi(image, sitk.GetImageFromArray(mask), grid_of(image), (0, 0, 0))
    frames = rng.integers(0, 256, (80, 128, 128), dtype=np.uint8)  # noise: the slowest to compress

    def show(name: str, work: Callable[[], object]) -> None:
        seconds = []
        for _ in range(11):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        print(f"{name:<50}{statistics.median(seconds) * 1000:8.1f} ms (best {min(seconds) * 1000:.1f})")

    start = time.perf_counter()
    RoiStore.create(path, case_ids)
    print(f"{'create with 10000 cases':<50}{(time.perf_counter() - start) * 1000:8.1f} ms")
    show("open", lambda: RoiStore.open(path))
    show("open, write 180 x 180 x 80 int16, 80 frames", lambda: RoiStore.open(path).write(case_ids[7], roi, frames, {}))
    show("open, read image and mask", lambda: RoiStore.open(path).read_roi(case_ids[7]))
    show("open, read frames", lambda: RoiStore.open(path).read_frames(case_ids[7]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
