"""The grade network's size and speed, and the grade of made brain cohorts with a signal and without.

    python -m benchmarks.grade [--patients N] [--matrix N] [--out DIR] [--signal 1,0] [--speed-only]

Whole runs: DICOM and NIfTI in, brains prepared, the network trained within the folds, nested validation. What is
finished in DIR is kept, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
import time
from pathlib import Path

import numpy as np

from prognosis_dask.deep.grade_network import GradeNetwork
from prognosis_dask.deep.training import load_learner, run_network, train
from prognosis_dask.job import (
    BrainSection,
    CohortSection,
    DeepSection,
    GradeSection,
    Job,
    ModelSection,
    SynthSection,
)
from prognosis_dask.pipeline import run

_MEASURES = ("auc", "balanced_accuracy", "brier", "calibration_slope", "ici")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--matrix", type=int, default=96)
    parser.add_argument("--out", type=Path, default=Path("runs/grade"))
    parser.add_argument("--signal", default="1,0", help="strengths of what the grade does to the images")
    parser.add_argument("--input", choices=["study", "brain", "tumour"], default="study")
    parser.add_argument("--speed-only", action="store_true")
    arguments = parser.parse_args()
    show_network()
    show_speed()
    if not arguments.speed_only:
        print("\n| signal | procedure | measure | value | 95 % interval |\n|---|---|---|---|---|")
        for signal in map(float, arguments.signal.split(",")):
            show_grade(arguments, signal)


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
    for engine, library in (("gluon", "mxnet"), ("torch", "torch")):
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
    trained = train(volumes, labels, [str(case) for case in range(8)], section)
    _, probability = run_network(trained, volumes, section)
    loss = -np.log(np.where(labels, probability, 1 - probability)).max()
    print(f"\nlargest loss of 8 cases after {section.epochs} epochs: {loss:.1e}")


def show_grade(arguments: argparse.Namespace, signal: float) -> None:
    job = Job(
        name=f"grade-signal-{signal:g}",
        cohort=CohortSection(roi=("re:.*",), sequences=True),
        synth=SynthSection(arguments.patients, 0, signal, False, "brain", arguments.matrix),
        brain=BrainSection(enabled=True),
        deep=DeepSection(enabled=False),
        grade=GradeSection(enabled=True, input=arguments.input, batch_size=8, clinical=("age", "gender")),
        model=ModelSection(label="grade", classes=("2", "3"), max_features=20, folds=5, repeats=1),
    )
    folder = arguments.out / f"signal-{signal:g}"
    run(job, out=folder, say=lambda line: None)
    with (folder / "models" / "measures.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["measure"] in _MEASURES and row["in_sample"] in ("0", "False"):
                interval = f"{_number(row['lower'])} to {_number(row['upper'])}"
                print(f"| {signal:g} | {row['procedure']} | {row['measure']} | {_number(row['value'])} | {interval} |")


def _number(text: str) -> str:
    return f"{float(text):.2f}" if text else "-"


if __name__ == "__main__":
    main()
