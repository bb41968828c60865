"""The CT job of LUNG1 from DICOM to features, on one and on two workers: ``prognosis bench`` with its settings.

    python -m benchmarks.throughput [--cases 40] [--no-network] [--data FOLDER]

LUNG1-002 (FOLDER/lung1_002; default: PROGNOSIS_TEST_DATA, else ../shared/data beside the checkout) stands for a cohort:
every case reads the same files again, from the disk cache after the first. ``--no-network`` leaves the network out,
which is bound by memory bandwidth rather than by cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from prognosis_dask.config.job import load_job
from prognosis_dask.workflows.bench import sweep, write_tables

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--no-network", action="store_true")
    parser.add_argument("--data", type=Path, default=os.environ.get("PROGNOSIS_TEST_DATA", ROOT.parent / "shared/data"))
    options = parser.parse_args()
    overrides = [f"cohort.sources={options.data / 'lung1_002'}", "deep.weights=untrained:1"]
    overrides += ["deep.enabled=false"] * options.no_network
    job = load_job(ROOT / "jobs" / "lung1.toml", overrides)
    with tempfile.TemporaryDirectory() as out:
        index_seconds, runs = sweep(
            job, Path(out), virtual=options.cases, workers=(1, 2), cases_per_task=(0, 4),
            say=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
        print(write_tables(runs, index_seconds, Path(out)))


if __name__ == "__main__":
    main()
