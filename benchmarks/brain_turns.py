"""Heads turned against their headers in all 24 ways, prepared as a run prepares them: what is refused.

python -m benchmarks.brain_turns [--data DATA] [--methods deepbet,template] [NAME ...]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np

from prognosis_dask.brain.orient import axial, turned, turns
from prognosis_dask.brain.preprocess import preprocess
from prognosis_dask.cohort.names import sequence_of
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, Code
from tests.heads import read_head

HEADS = ("FG6692_T1", "p04_1_T1W", "TCGA-02-0054_T1")


def outcome(data: Path, name: str, method: str, turn: int) -> str:
    """The code with which a head turned by one of the 24 ways is refused; empty if it is accepted."""
    image = axial(turned(read_head(data, name), turns()[turn], np.zeros(3)))
    try:
        preprocess({sequence_of(name): image}, BrainSection(skull_strip=method))
    except CaseError as error:
        return error.problem.code
    return ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=HEADS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", default="deepbet,template")
    given = parser.parse_args()
    print(
        "| head | strip | as it lies | 23 wrong ways: `orientation` | another code | accepted | CPU s a head |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in given.names:
        for method in given.methods.split(","):
            cpu = time.process_time()
            right, *wrong = (outcome(given.data, name, method, turn) for turn in range(len(turns())))
            seconds = (time.process_time() - cpu) / len(turns())
            found = Counter(wrong)
            told, accepted = found[Code.ORIENTATION], found[""]
            print(
                f"| {name} | {method} | {right or 'accepted'} | {told} | {len(wrong) - told - accepted} | {accepted} "
                f"| {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
