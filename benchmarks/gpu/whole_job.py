"""A whole job on this machine's cores and GPU, DICOM to features, with a virtual cohort.

    python -m benchmarks.gpu.whole_job [--patients 2000] [--distinct 40] [--cluster cuda] [--radiomics]

``--distinct`` synthetic patients are written as DICOM; the cohort's table names each of them several times, as other
patients, so that files are parsed, cropped, stored and shown to the network as often as there are patients. The
distinct files stay in the page cache: a cohort that is read from a disk is bound by it besides. Printed: patients per
second from the first task to the last feature, and the seconds of the stages.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from prognosis_dask.cohort.case import read_cases, write_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, SynthSection, load_job
from prognosis_dask.execution.cluster import connect, map_on, read_cluster
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.workflows.run import run

DEMO = Path(__file__).resolve().parents[2] / "jobs" / "demo.toml"


def main() -> None:
    options = _options()
    marks: dict[str, float] = {}

    def say(line: str) -> None:
        marks[line.split()[-2] if "dashboard" in line else line.split()[0]] = time.perf_counter()
        print(line, flush=True)

    with tempfile.TemporaryDirectory(dir=options.folder) as name, connect(read_cluster(options.cluster)) as client:
        folder = Path(name)
        table = _virtual_cohort(folder, options, map_on(client))
        overrides = [
            "synth.patients=0",
            f"cohort.cases={table}",
            f"deep.engine={options.engine}",
            f"deep.device={options.device}",
            f"deep.precision={options.precision}",
            f"deep.batch_size={options.batch}",
            f"radiomics.enabled={str(options.radiomics).lower()}",
            "model.enabled=false",
        ]
        result = run(load_job(DEMO, overrides), client=client, out=folder / "run", say=say)
        record = json.loads((folder / "run" / "run.json").read_text())
    seconds = marks["Collecting"] - marks["dashboard"]
    print(f"\n{record['deep']}\n\n| stage | done | failed | seconds on workers | ms a patient |\n|---|---|---|---|---|")
    for stage, counts in result.stages.items():
        each = 1000 * counts["seconds"] / max(1, counts["done"])
        print(f"| {stage} | {counts['done']} | {counts['failed']} | {counts['seconds']:.1f} | {each:.1f} |")
    print(f"\n{options.patients} patients in {seconds:.1f} s: {options.patients / seconds:.1f} patients/s")
    print(f"{record['cluster']['workers']} workers, driver {record['driver_cpu_seconds']:.1f} s of CPU time")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--distinct", type=int, default=40)
    parser.add_argument("--cluster", default="cuda")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--radiomics", action="store_true", help="with radiomics, which take most of the time then")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    return parser.parse_args()


def _virtual_cohort(folder: Path, options: argparse.Namespace, cluster_map) -> Path:  # noqa: ANN001
    made = make_cohort(folder / "made", SynthSection(options.distinct, 0, 1.0, False), map=cluster_map)
    rules = CohortSection(roi=("GTV-1",), roi_policy="first", clinical=str(made.clinical))
    index_cohort([made.images], folder / "index", rules, map=cluster_map)
    distinct = read_cases(folder / "index" / "cases.csv")
    cohort = [
        replace(case, case_id=f"{case.case_id}-{number}", patient_id=f"{case.patient_id}-{number}")
        for number in range(-(-options.patients // len(distinct)))
        for case in distinct
    ]
    write_cases(folder / "cohort.csv", cohort[: options.patients])
    return folder / "cohort.csv"


if __name__ == "__main__":
    main()
