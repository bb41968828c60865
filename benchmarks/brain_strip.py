"""Skull strip on real heads, without and with the network: Dice, surface distance, what is lost, seconds, memory.

    python -m benchmarks.brain_strip [--data DATA] [--methods template,deepbet] [NAME ...]

First each image alone, then each patient's sequences prepared together, with the mask compared on T2: for the first
time in a process, which loads torch and the template, and once more, as a worker's next case. Each runs in a process of
its own, on one thread. The reference is the mask of the head itself; where it has none, of another sequence, or what
deepbet finds on T1, moved by registration.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import SimpleITK as sitk

from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.preprocess import kind_of, preprocess
from prognosis_dask.brain.register import rigid
from prognosis_dask.brain.strip import strip, strip_with
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError
from prognosis_dask.imaging.geometry import image_like, one_thread
from tests.heads import WITH_MASK, apart_mm, lost_ml, overlap, read_head, read_mask

#: By patient the sequences, the one that masks are carried from first.
PATIENTS = {
    "FG6692": ("T1", "T1c", "FLAIR", "T2"),
    "TCGA-02-0054": ("T1", "T1c", "FLAIR", "T2"),
    "p04_1": ("T1W", "FLAIR", "T2W"),
}


def heads() -> list[str]:
    """All images by name."""
    return [f"{patient}_{sequence}" for patient, sequences in PATIENTS.items() for sequence in sequences]


def reference(data: Path, name: str, image: sitk.Image) -> sitk.Image:
    """The mask that a head is compared with, on its grid."""
    if name in WITH_MASK:
        return read_mask(data, name, image)
    patient = next(one for one in PATIENTS if name.startswith(one))
    base = f"{patient}_{PATIENTS[patient][0]}"
    from_image = axial(read_head(data, base))
    mask = read_mask(data, base, from_image) if base in WITH_MASK else strip_with("deepbet", from_image)
    if base == name:
        return mask
    moved = rigid(from_image, image)[0].GetInverse()
    return sitk.Resample(mask, image, moved, sitk.sitkNearestNeighbor, 0.0)


def figures(brain: sitk.Image, truth: sitk.Image) -> str:
    """Dice, HD95 and what is lost, as cells."""
    brain, truth = sitk.Cast(brain, sitk.sitkUInt8), image_like(sitk.GetArrayFromImage(truth), brain)
    return f"{overlap(brain, truth):.3f} | {apart_mm(brain, truth):.1f} | {lost_ml(brain, truth):.0f}"


def peak_mb() -> int:
    """The process's peak memory since it was last asked to forget."""
    return int(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000)


def alone(data: Path, name: str, method: str) -> str:
    """Strip one image; its row of the table."""
    image = axial(read_head(data, name))
    Path("/proc/self/clear_refs").write_text("5")
    cpu = time.process_time()
    with one_thread():
        brain = strip(image, kind_of(sequence_of(name))).brain if method == "template" else strip_with(method, image)
        cpu, mb = time.process_time() - cpu, peak_mb()
        truth = reference(data, name, image)
    return f"| {name} | {method} | {figures(brain, truth)} | {cpu:.1f} | {mb} |"


def together(data: Path, patient: str, method: str) -> str:
    """Prepare a patient's sequences; its row of the table."""
    *others, last = (f"{patient}_{sequence}" for sequence in PATIENTS[patient])
    images = {sequence_of(name): axial(read_head(data, name)) for name in (last, *others)}
    Path("/proc/self/clear_refs").write_text("5")
    spent = []
    for _ in range(2):
        cpu = time.process_time()
        try:
            brain = preprocess(images, BrainSection(skull_strip=method)).brain_mask  # type: ignore[arg-type]
        except CaseError as error:
            return f"| {patient} | {method} | {error.problem.code} | | | | |"
        spent.append(f"{time.process_time() - cpu:.1f}")
    mb = peak_mb()
    with one_thread():
        truth = reference(data, last, images["T2"])
    return f"| {patient} | {method} | {figures(brain, truth)} | {', '.join(spent)} | {mb} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*heads(), *PATIENTS])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", default="template,deepbet")
    given = parser.parse_args()

    def rows(row: Callable[[Path, str, str], str], names: list[str]) -> None:
        print("| head | method | Dice | HD95, mm | lost, ml | CPU s | peak MB |\n|---|---|---|---|---|---|---|")
        for name in names:
            for method in given.methods.split(","):
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    print(pool.submit(row, given.data, name, method).result(), flush=True)

    rows(alone, [name for name in given.names if name not in PATIENTS])
    print("\nAll sequences of a patient:\n")
    rows(together, [name for name in given.names if name in PATIENTS])


if __name__ == "__main__":
    main()
