"""The automatic candidate on real heads: Dice, size and confidence on FLAIR and T2, and on each alone.

    python -m benchmarks.brain_candidate [--data DATA] [HEAD ...]

The tumour of DU7294 is outlined by hand on T2; elsewhere each sequence is compared with both together.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.candidate import automatic_candidate
from prognosis_dask.brain.orient import axial
from prognosis_dask.errors import CaseError
from prognosis_dask.imaging.geometry import one_thread
from tests.heads import OF_TUMOUR, overlap, prepared

_OUTLINED = {"DU7294": "DU7294_tumour_T2"}


def row(head: str, images: Mapping[str, sitk.Image], brain: sitk.Image, truth: sitk.Image | None) -> str:
    """What was found on these sequences, as a row of the table."""
    names = "+".join(images)
    try:
        found = automatic_candidate(images, brain)
    except CaseError as error:
        return f"| {head} | {names} | {error.problem.code.value} | | |"
    ml = np.count_nonzero(sitk.GetArrayViewFromImage(found.mask)) * np.prod(brain.GetSpacing()) / 1000
    dice = f"{overlap(found.mask, truth):.2f}" if truth is not None else ""
    return f"| {head} | {names} | {ml:.0f} | {dice} | {found.confidence:.2f} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", nargs="*", default=list(OF_TUMOUR))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    print("| head | sequences | ml | Dice | confidence |\n|---|---|---|---|---|")
    with one_thread():
        for head in given.heads:
            images, brain = prepared(given.data, head)
            truth = None
            if head in _OUTLINED:
                truth = axial(sitk.ReadImage(str(given.data / "heads" / f"{_OUTLINED[head]}.nii.gz")))
                truth = sitk.Resample(truth, brain, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
            elif len(images) == 2:
                truth = automatic_candidate(images, brain).mask
            for names in dict.fromkeys([tuple(images), ("T2",), tuple(images)[-1:]]):
                print(row(head, {name: images[name] for name in names}, brain, truth), flush=True)


if __name__ == "__main__":
    main()
