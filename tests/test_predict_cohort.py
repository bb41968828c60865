"""A model of a synthetic chest CT cohort, and new patients predicted with it: a folder of them, and one alone."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import prognosis_dask
from prognosis_dask.cli.main import EXIT_STOPPED, main
from prognosis_dask.config.job import CohortSection, DeepSection, Job, ModelSection, SynthSection
from prognosis_dask.synthetic import make_cohort
from tests.dask_processes import wait_for
from tests.test_pipeline import recorded_rows


def _interrupted(run: Path, new: Path, out: Path) -> None:
    """The command, stopped once a case is recorded: it says that the same command goes on."""
    command = [sys.executable, "-m", "prognosis_dask", "predict", str(run), str(new), "--cohort", "-o", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        wait_for(lambda: recorded_rows(out) >= 1)
        os.killpg(started.pid, signal.SIGINT)
        _, errors = started.communicate()
    assert started.returncode == EXIT_STOPPED
    assert "stopped. Finished work is kept; run the same command again to resume." in errors


@pytest.mark.slow
def test_new_ct_patients_are_predicted_from_their_folder_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(
        "chest",
        cohort=CohortSection(roi=("GTV-1",), roi_policy="first"),
        synth=SynthSection(patients=16, bad_cases=False),
        deep=DeepSection(enabled=False),
        model=ModelSection(features="radiomics", folds=2, repeats=1, halves=0, max_features=2),
    )
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "chest"
    prognosis_dask.run(job, out=run, say=lambda line: None)
    new = make_cohort(tmp_path / "new", SynthSection(patients=3, seed=7, bad_cases=False)).images
    for module in (
        "prognosis_dask.features.dataset",
        "prognosis_dask.prediction.scan",
    ):  # their examples, in this folder
        tried = doctest.testmod(importlib.import_module(module))
        assert tried.attempted > 1
        assert tried.failed == 0
    main(["predict", str(run), str(new), "--cohort", "-o", "many"])  # goes on from the example's
    many = pd.read_csv(tmp_path / "many" / "predictions.csv").set_index("patient_id")
    assert sorted(many.index) == ["MADE-0001", "MADE-0002", "MADE-0003"]
    assert many["risk_score"].notna().all()
    _interrupted(run, new, tmp_path / "again")
    main(["predict", str(run), str(new), "--cohort", "-o", "again"])
    pd.testing.assert_frame_equal(pd.read_csv("again/predictions.csv").set_index("patient_id"), many)
    main(["predict", str(run), str(new / "MADE-0002"), "-o", "one"])
    one = json.loads((tmp_path / "one" / "scan.json").read_text())
    assert one["prediction"]["risk_score"] == pytest.approx(many.loc["MADE-0002", "risk_score"], abs=1e-12)
