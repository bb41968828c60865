"""Does the pipeline find the synthetic cohort's signal, and nothing where there is none? Whole runs over several seeds.

    python -m benchmarks.synthetic_cohort [--patients 60] [--seeds 3] [--signals 1 0]

Every run is the demo's, from DICOM to the cross-validated C-index, on a cohort of its own, with radiomic features.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from prognosis_dask.config.job import load_job
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.workflows.run import run

JOB = Path(__file__).resolve().parents[1] / "jobs" / "demo.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--signals", type=float, nargs="+", default=[1.0, 0.0])
    options = parser.parse_args()
    with connect(LocalSpec()) as client:
        for signal in options.signals:
            found = []
            for seed in range(options.seeds):
                overrides = [f"synth.patients={options.patients}", f"synth.seed={seed}", f"synth.signal={signal}"]
                overrides += ["deep.enabled=false", "model.features=radiomics", "synth.bad_cases=false"]
                with tempfile.TemporaryDirectory() as folder:
                    run(load_job(JOB, overrides), client=client, out=folder, say=lambda line: None)
                    summary = json.loads((Path(folder) / "models" / "summary.json").read_text())
                found.append(summary["c_index_cv"])
                print(f"signal {signal}, seed {seed}: cross-validated C-index {found[-1]:.3f}", flush=True)
            print(f"signal {signal}: mean {statistics.mean(found):.3f} over {options.seeds} seeds", flush=True)


if __name__ == "__main__":
    main()
