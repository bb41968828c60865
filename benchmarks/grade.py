"""The grade network's size and speed, and the grade of synthetic brain cohorts with a signal and without.

    python -m benchmarks.grade [--patients N] [--matrix N] [--out DIR] [--signal 1,0] [--shuffles N] [--speed-only]

Whole runs: DICOM and NIfTI in, brains prepared on T2 (which is all that the features are taken of), the network
trained within the folds, nested validation; then one new patient predicted, into DIR/signal-*/new. One cohort without
a signal says little, so after it grades are drawn by lot for its patients, again and again: everything but the
preparation is done anew each time, and the mean of the AUC has to be 0.5. What is finished in DIR is kept, so the same
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from prognosis_dask.config.job import (
    BrainSection,
    CohortSection,
    DeepSection,
    GradeSection,
    Job,
    ModelSection,
    SynthSection,
)
from prognosis_dask.features.dataset import read_features
from prognosis_dask.features.registry import COVARIATE
from prognosis_dask.modelling.folder import read_table
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.networks.grade_network import GradeNetwork
from prognosis_dask.networks.training import load_learner, run_network, train
from prognosis_dask.prediction.scan import predict_scan
from prognosis_dask.synthetic.brain import make_scan
from prognosis_dask.synthetic.patient import draw_brain_patient
from prognosis_dask.workflows.grade import fit_grade
from prognosis_dask.workflows.run import run

_MEASURES = ("auc", "balanced_accuracy", "brier", "calibration_slope", "ici")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--matrix", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("runs/grade"))
    parser.add_argument("--signal", default="1,0", help="strengths of what the grade does to the images")
    parser.add_argument("--input", choices=["study", "brain", "tumour"], default="study")
    parser.add_argument("--shuffles", type=int, default=3, help="draws of grades by lot on the last cohort")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--cross-fit", type=int, default=2)
    parser.add_argument("--speed-only", action="store_true")
    arguments = parser.parse_args()
    show_network()
    show_speed()
    if not arguments.speed_only:
        strengths = [float(signal) for signal in arguments.signal.split(",")]
        print("\n| signal | procedure | measure | value | 95 % interval |\n|---|---|---|---|---|")
        for signal in strengths:
            show_grade(arguments, signal)
        if arguments.shuffles:
            show_shuffled(arguments, strengths[-1])


def show_network() -> None:
    network = GradeNetwork()
    print("| layer | output | parameters |\n|---|---|---|")
    for name, shape in network.layers.items():
        own = (value for key, value in network.parameters.items() if key.startswith(f"{name}."))
        print(f"| {name} | {' x '.join(map(str, shape))} | {sum(map(math.prod, own)):,} |")
    print(f"| all | | {sum(map(math.prod, network.parameters.values())):,} |")


def show_speed() -> None:
    """Seconds of one step of training and of one case's features, in one thread."""
    rng = np.random.default_rng(0)
    network = GradeNetwork()
    values = network.draw(rng)
    print("\n| engine | batch | s per step | s per case, features |\n|---|---|---|---|")
    engines: tuple[tuple[Literal["gluon", "torch"], str], ...] = (("gluon", "mxnet"), ("torch", "torch"))
    for engine, library in engines:
        if not importlib.util.find_spec(library):
            continue
        for batch in (2, 8):
            volumes = rng.normal(size=(batch, *network.input_shape)).astype(np.float32)
            labels = (np.arange(batch) % 2).astype(np.float32)
            kept = (np.ones((batch, 512), np.float32), np.ones((batch, 32), np.float32))
            learner = load_learner(network, values, GradeSection(engine=engine))
            steps, runs = [], []
            for _ in range(4):
                start = time.perf_counter()
                learner.step(volumes, labels, np.ones(batch, np.float32), kept)
                steps.append(time.perf_counter() - start)
                start = time.perf_counter()
                learner.run(volumes[:1])
                runs.append(time.perf_counter() - start)
            print(f"| {engine} | {batch} | {min(steps):.2f} | {min(runs):.3f} |")
    overfit()


def overfit() -> None:
    """Eight cases of noise with labels at random, learnt by heart at the study's size."""
    rng = np.random.default_rng(1)
    volumes, labels = rng.normal(size=(8, 20, 64, 64)).astype(np.float32), np.arange(8) % 2
    section = GradeSection(epochs=15, patience=0, augment=False, learning_rate=3e-4)
    trained, _ = train(volumes, labels, [str(case) for case in range(8)], section)
    _, probability = run_network(trained, volumes, section)
    loss = -np.log(np.where(labels, probability, 1 - probability)).max()
    print(f"\nlargest loss of 8 cases after {section.epochs} epochs: {loss:.1e}")


def job_of(arguments: argparse.Namespace, signal: float) -> Job:
    return Job(
        name=f"grade-signal-{signal:g}",
        cohort=CohortSection(collection="lgg_1p19q"),
        synth=SynthSection(arguments.patients, 0, signal, False, "brain", arguments.matrix),
        brain=BrainSection(enabled=True, sequences=("T2",)),
        deep=DeepSection(enabled=False),
        grade=GradeSection(
            enabled=True,
            input=arguments.input,
            batch_size=8,
            cross_fit=arguments.cross_fit,
            clinical=("age", "gender"),
        ),
        model=ModelSection(label="grade", classes=("2", "3"), max_features=20, folds=arguments.folds, repeats=1),
    )


def show_grade(arguments: argparse.Namespace, signal: float) -> None:
    """A cohort from its files to the frozen grade, and one new patient."""
    folder = arguments.out / f"signal-{signal:g}"
    run(job_of(arguments, signal), out=folder, say=lambda line: None)
    for row in measures(folder):
        interval = f"{_number(row['lower'])} to {_number(row['upper'])}"
        print(
            f"| {signal:g} | {row['procedure']} | {row['measure']} | {_number(row['value'])} | {interval} |", flush=True
        )
    new = make_scan(draw_brain_patient(arguments.patients + 1, 0, signal), arguments.matrix)
    image, mask = folder / "T2.nii.gz", folder / "mask.nii.gz"
    sitk.WriteImage(new.sequences["T2"].image, str(image))
    sitk.WriteImage(new.lesion_mask, str(mask))
    predict_scan(folder, [image], folder / "new", mask=mask)


def show_shuffled(arguments: argparse.Namespace, signal: float) -> None:
    """Grades by lot on the prepared cases: mean AUC per procedure, and how far the draws are apart."""
    folder = arguments.out / f"signal-{signal:g}"
    dataset, name = read_features(folder), f"{COVARIATE}grade"
    found: dict[str, list[float]] = {}
    with ProcessPoolExecutor(2) as pool:
        for seed in range(arguments.shuffles):
            lot = folder / f"lot-{seed}"
            if not (lot / "models").is_dir():
                lot.mkdir(exist_ok=True)
                if not (lot / "brain").exists():
                    (lot / "brain").symlink_to((folder / "brain").resolve())
                drawn = np.random.default_rng(seed).permutation(dataset[name].values)
                fit_grade(
                    job_of(arguments, signal), dataset.assign({name: (dataset[name].dims, drawn)}), lot, map=pool.map
                )
            for row in measures(lot):
                if row["measure"] == "auc":
                    found.setdefault(row["procedure"], []).append(float(row["value"]))
    print("\n| grades by lot | draws | mean AUC | standard error | least | most |\n|---|---|---|---|---|---|")
    for procedure, values in found.items():
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else math.nan
        print(
            f"| {procedure} | {len(values)} | {np.mean(values):.2f} | {error:.2f} | {min(values):.2f} | "
            f"{max(values):.2f} |"
        )


def measures(folder: Path) -> list[Row]:
    """The rows of a run's measures on held-out cases."""
    table = read_table(folder / "models", "measures")
    rows = [] if table is None else table.to_dict("records")
    return [row for row in rows if row["measure"] in _MEASURES and not row["in_sample"]]


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    main()
