"""Quality figures of brain masks that are right, and of the same masks spoilt by hand: what is refused.

    python -m benchmarks.brain_quality [--data DATA] [NAME ...]

On real heads with a mask of their own: as it is, 5 mm smaller and larger, moved by 5 mm in four directions, without a
lobe, with the orbits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import SimpleITK as sitk

from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.preprocess import implausible, kind_of, quality
from prognosis_dask.brain.strip import aligned
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.imaging.geometry import one_thread
from tests.heads import LOBES, WITH_MASK, grown, read_head, read_mask, shifted, with_eyes, without

_MM = 5.0


def masks(mask: sitk.Image, from_template: sitk.AffineTransform) -> Iterator[tuple[str, sitk.Image]]:
    """The mask as it is and spoilt, with what was done to it."""
    yield "right", mask
    yield "5 mm smaller", grown(mask, -_MM)
    yield "5 mm larger", grown(mask, _MM)
    for name, x, y in (("left", _MM, 0.0), ("right", -_MM, 0.0), ("back", 0.0, _MM), ("front", 0.0, -_MM)):
        yield f"5 mm to the {name}", shifted(mask, x, y)
    for lobe in LOBES:
        yield f"without a {lobe} lobe", without(mask, lobe, from_template)
    yield "with the orbits", with_eyes(mask, from_template)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(WITH_MASK))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    print("| head | mask | skull, mm | to one side, mm | missing, ml | beyond, ml | refused |")
    print("|---|---|---|---|---|---|---|")
    for name in given.names:
        sequence = sequence_of(name)
        image, kind = axial(read_head(given.data, name)), kind_of(sequence)
        with one_thread():
            right = read_mask(given.data, name, image)
            for what, mask in masks(right, aligned(image, right, kind, stripped_before=False).from_template):
                figures = quality(image, aligned(image, mask, kind, stripped_before=False), kind)
                shown = (figures[key] for key in ("skull_mm", "off_centre_mm", "missing_ml", "beyond_ml"))
                said = "yes" if implausible(figures, sequence) else "no"
                print(f"| {name} | {what} | {' | '.join(f'{value:.1f}' for value in shown)} | {said} |", flush=True)


if __name__ == "__main__":
    main()
