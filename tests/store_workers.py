"""What the other processes in the tests of the store do: at module level, so that they can be spawned."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.imaging.roi import Roi
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.volumes.grid import Grid

SLICES = 40


def make_roi(value: int, *, slices: int = SLICES, kind: type = np.int16) -> Roi:
    """A small region with an oblique, unround geometry; everything in it depends on ``value``."""
    rng = np.random.default_rng(value)
    shape = (slices, 60, 50)
    image = sitk.GetImageFromArray((rng.normal(0, 100, shape) + value).astype(kind))
    mask = sitk.GetImageFromArray((rng.random(shape) < 0.3).astype(np.uint8))
    cos, sin = np.cos(0.3), np.sin(0.3)
    direction = (cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0)
    for part in (image, mask):
        part.SetSpacing((0.1 + 0.2, 1 / 3, 2.5000000000000004))
        part.SetOrigin((-249.51171875, 1e-17, -0.0))
        part.SetDirection(direction)
    full = Grid((512, 511, 133), (0.1 + 0.2, 1 / 3, 2.5000000000000004), (-1 / 7, 2.0, 3e300), direction)
    return Roi(image, mask, full, (3, 0, value), "[hnsf'U]")


def make_frames(value: int, slices: int = SLICES) -> np.ndarray:
    return np.full((slices, 128, 128), value, np.uint8)


def write_for_ever(path: Path, case_id: str, values: tuple[int, ...]) -> None:
    """Write the case again and again, with one value after the other."""
    while True:
        for value in values:
            RoiStore.open(path).write(case_id, make_roi(value), make_frames(value, 10 * value), {"value": value})


def write_times(path: Path, case_id: str, value: int, times: int) -> None:
    for _ in range(times):
        RoiStore.open(path).write(case_id, make_roi(value), make_frames(value, 10 * value), {"value": value})


def create_for_ever(path: Path, start: int) -> None:
    """Add more and more cases."""
    for number in range(start, 10**9):
        RoiStore.create(path, [f"case-{i}" for i in range(number * 100)])


def hold_ledger(path: Path, held: Path) -> None:
    """Be the driver until killed."""
    with Ledger.create(path):
        held.touch()
        time.sleep(600)


def record_for_ever(path: Path, size: int, ready: Path) -> None:
    """Record the same ``size`` cases in one go, each time with the next number as digest and in the result."""
    with Ledger.create(path) as ledger:
        number = 0
        while True:
            ledger.record(
                TaskResult(f"case-{i:05d}", "roi", str(number), None, {}, {"number": number, "pad": "x" * 500})
                for i in range(size)
            )
            number += 1
            ready.touch()
