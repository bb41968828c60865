"""How well brains are prepared and tumours measured where the truth is known: on synthetic patients.

    python -m benchmarks.brain_cohort [--patients 8] [--seed 0] [--matrix 256] [--workers 1]

Per patient: overlap of the brain with the template-derived truth (Dice); correlation of the estimated bias field with
the planted one in the brain, on T2; mean distance of 13 landmarks after the rigid registration between the sequences,
and after the affine one to the template (whose warp has a free-form part that no affine map follows); errors of the
drawn tumour's size, interpolated where three slices were outlined; Dice of the automatic candidate on the sequences
that preprocessing gives, with FLAIR and with T2 alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.candidate import automatic_candidate
from prognosis_dask.brain.preprocess import Preprocessed, preprocess
from prognosis_dask.brain.register import rigid
from prognosis_dask.brain.size import tumour_size
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError
from prognosis_dask.imaging.gaps import between_slices
from prognosis_dask.synthetic.brain import LANDMARKS, SyntheticScan, make_scan
from prognosis_dask.synthetic.files import drawn_mask
from prognosis_dask.synthetic.patient import draw_brain_patient

COLUMNS = (
    ("brain Dice", ".3f"),
    ("bias r", ".3f"),
    ("between sequences mm", ".2f"),
    ("to template mm", ".2f"),
    ("volume %", "+.1f"),
    ("axial %", "+.1f"),
    ("perpendicular %", "+.1f"),
    ("3D %", "+.1f"),
    ("candidate Dice", ".2f"),
    ("on T2 alone", ".2f"),
    ("seconds", ".0f"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matrix", type=int, default=256, help="voxels across a slice")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print("| patient | slices | " + " | ".join(name for name, _ in COLUMNS) + " |")
    print("|---|---|" + "---|" * len(COLUMNS))
    rows = []
    with ProcessPoolExecutor(options.workers) as pool:
        numbers = range(1, options.patients + 1)
        for words, row in pool.map(partial(measure, seed=options.seed, matrix=options.matrix), numbers):
            rows.append(row)
            print(line(words, row), flush=True)
    known = [[value for value in column if np.isfinite(value)] for column in zip(*rows, strict=True)]
    signed = [name.endswith("%") for name, _ in COLUMNS]
    means = [
        statistics.mean(map(abs, column) if sign else column) if column else float("nan")
        for column, sign in zip(known, signed, strict=True)
    ]
    print(line(("**mean** (sizes: of the absolute errors)", ""), means))


def line(words: tuple[str, str], row: list[float]) -> str:
    cells = [f"{value:{form}}" for value, (_, form) in zip(row, COLUMNS, strict=True)]
    return "| " + " | ".join([*words, *cells]) + " |"


def measure(number: int, seed: int, matrix: int) -> tuple[tuple[str, str], list[float]]:
    """One patient's row: what it is, and the figures in the order of ``COLUMNS``."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    patient = draw_brain_patient(number, seed, 1.0)
    scan = make_scan(patient, matrix)
    outlined = "3 of them" if patient.outlined_slices else "all"
    words = (
        patient.patient_id,
        f"{scan.lesion_mask.GetSize()[2]} of {patient.slice_step_mm:g} mm, {outlined} outlined",
    )
    images = {name: sequence.image for name, sequence in scan.sequences.items()}
    begun = time.perf_counter()
    done = preprocess(images, BrainSection(normalise="none"), reference="T2")
    seconds = time.perf_counter() - begun
    size = tumour_size(between_slices(_drawn(scan, patient.outlined_slices))[0], done.to_template)
    lesion = scan.lesion
    truth = (lesion.volume_ml, *lesion.axial_diameters_mm, lesion.diameter_3d_mm)
    measured = (size.volume_ml, size.axial_diameter_mm, size.perpendicular_mm, size.diameter_3d_mm)
    figures = [
        dice(done.brain_mask, scan.sequences["T2"].brain),
        _bias_correlation(scan, done),
        _between_sequences_mm(scan),
        _to_template_mm(scan, done),
        *(100 * (ours / true - 1) for ours, true in zip(measured, truth, strict=True)),
        _candidate_dice(scan, done, ("FLAIR", "T2")),
        _candidate_dice(scan, done, ("T2",)),
        seconds,
    ]
    return words, figures


def dice(one: sitk.Image, other: sitk.Image) -> float:
    a, b = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (one, other))
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def _bias_correlation(scan: SyntheticScan, done: Preprocessed) -> float:
    """Of the logarithms, in the brain: the field is what the reference sequence was divided by."""
    image, corrected, planted = (
        sitk.GetArrayFromImage(i).astype(float)
        for i in (scan.sequences["T2"].image, done.images["T2"], scan.sequences["T2"].bias)
    )
    inside = (sitk.GetArrayViewFromImage(done.brain_mask) > 0) & (image > 0) & (corrected > 0)
    return float(np.corrcoef(np.log(image[inside] / corrected[inside]), np.log(planted[inside]))[0, 1])


def _between_sequences_mm(scan: SyntheticScan) -> float:
    errors = []
    fixed = sitk.Cast(scan.sequences["T1"].image, sitk.sitkFloat32)
    for name in ("T2", "T1c", "FLAIR"):
        turn, _ = rigid(fixed, sitk.Cast(scan.sequences[name].image, sitk.sitkFloat32))
        for key in LANDMARKS:
            moved = turn.TransformPoint(scan.landmarks["T1"][key].tolist())
            errors.append(float(np.linalg.norm(np.subtract(moved, scan.landmarks[name][key]))))
    return statistics.mean(errors)


def _to_template_mm(scan: SyntheticScan, done: Preprocessed) -> float:
    places = (
        (done.to_template.TransformPoint(scan.landmarks["T2"][key].tolist()), at) for key, at in LANDMARKS.items()
    )
    return statistics.mean(float(np.linalg.norm(np.subtract(found, at))) for found, at in places)


def _drawn(scan: SyntheticScan, slices: int) -> sitk.Image:
    mask = sitk.GetImageFromArray(drawn_mask(scan, slices).astype(np.uint8))
    mask.CopyInformation(scan.lesion_mask)
    return mask


def _candidate_dice(scan: SyntheticScan, done: Preprocessed, names: tuple[str, ...]) -> float:
    """Dice with the whole lesion; 0 where none is found."""
    try:
        found = automatic_candidate({name: done.images[name] for name in names}, done.brain_mask)
    except CaseError:
        return 0.0
    return dice(found.mask, scan.lesion_mask)


if __name__ == "__main__":
    main()
