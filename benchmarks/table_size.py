"""Reading large tables of features: processor seconds from the file to the joined table, and the process's peak memory.

    python -m benchmarks.table_size [ROWS COLUMNS]

Writes a table of random features (17 digits, as pandas writes them) with an ID, time and event, and a clinical table
with as many patients; reads and joins them in a process of its own, as ``prognosis fit`` does before it fits.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_SIZES = ((60, 100_000), (10_000, 2_000))
_READ = """
import sys
from benchmarks.table_size import read
read(sys.argv[1:])
"""


def write(folder: Path, rows: int, columns: int) -> list[Path]:
    rng = np.random.default_rng(0)
    features, clinical = folder / "features.csv", folder / "clinical.csv"
    with features.open("w") as stream:
        stream.write(",".join(["PatientID", *(f"f{j}" for j in range(columns))]) + "\n")
        for i in range(rows):
            stream.write(f"P{i}," + ",".join(map(repr, rng.normal(size=columns).tolist())) + "\n")
    with clinical.open("w") as stream:
        stream.write("PatientID,age,sex,time_days,event\n")
        for i, days in enumerate(rng.exponential(600, rows)):
            stream.write(f"P{i},{50 + i % 37},{'mf'[i % 2]},{days + 1:.1f},{int(rng.random() < 0.6)}\n")
    return [features, clinical]


def read(paths: list[str]) -> None:
    from prognosis_dask.modelling.data.reading import find_tables, read_tables
    from prognosis_dask.modelling.spec import ModelSpec

    began = time.process_time()
    sources = find_tables(paths, ModelSpec())
    parsed = time.process_time()
    read = read_tables(sources)
    ended = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows, columns = read.table.X.shape
    took = f"read {parsed - began:.1f} s, joined and checked {ended - parsed:.1f} s"
    print(f"{rows} x {columns}: {took}, peak {peak:.0f} MB")


def main() -> None:
    sizes = [(int(sys.argv[1]), int(sys.argv[2]))] if len(sys.argv) > 2 else _SIZES
    for rows, columns in sizes:
        with tempfile.TemporaryDirectory() as folder:
            paths = write(Path(folder), rows, columns)
            print(f"{sum(path.stat().st_size for path in paths) / 1e6:.0f} MB of CSV", flush=True)
            subprocess.run([sys.executable, "-c", _READ, *map(str, paths)], check=True)


if __name__ == "__main__":
    main()
