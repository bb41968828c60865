"""Heads turned against their headers in all 24 ways, prepared as a run prepares them: what is refused.

python -m benchmarks.brain_turns [--data DATA] [--methods deepbet,template] [NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from prognosis_dask.brain.orient import axial, turned, turns
from prognosis_dask.brain.preprocess import preprocess
from prognosis_dask.cohort.sequence_names import sequence_of
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


def order() -> list[int]:
    """The numbers of all turns: as it lies, half turns about an axis, quarter turns, then those about diagonals."""

    def about_diagonal(number: int) -> int:
        matrix = turns()[number]
        return 0 if not np.count_nonzero(matrix - np.diag(np.diag(matrix))) else 2 - int(np.trace(matrix) == 1)

    return sorted(range(len(turns())), key=about_diagonal)


def main() -> None:
    """Measure and print; each outcome goes to standard error at once, the usual errors in files first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=HEADS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", default="deepbet,template")
    given = parser.parse_args()
    found: dict[tuple[str, str], list[str]] = {
        (name, method): [] for name in given.names for method in given.methods.split(",")
    }
    spent = Counter[tuple[str, str]]()
    for turn in order():
        for (name, method), said in found.items():
            cpu = time.process_time()
            said.append(outcome(given.data, name, method, turn))
            cpu = time.process_time() - cpu
            spent[name, method] += cpu
            print(f"{name} {method} turn {turn}: {said[-1] or 'accepted'}, {cpu:.1f} s", file=sys.stderr, flush=True)
    print(
        "| head | strip | as it lies | 23 wrong ways: `orientation` | another code | accepted | CPU s a head |\n"
        "|---|---|---|---|---|---|---|"
    )
    for (name, method), (right, *wrong) in found.items():
        counts = Counter(wrong)
        told, accepted = counts[Code.ORIENTATION], counts[""]
        print(
            f"| {name} | {method} | {right or 'accepted'} | {told} | {len(wrong) - told - accepted} | {accepted} "
            f"| {spent[name, method] / len(turns()):.1f} |"
        )


if __name__ == "__main__":
    main()
