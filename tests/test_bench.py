"""The benchmark measures what it says: all cases, each anew, and writes the same figures as table, CSV and plot."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import SynthSection
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.workflows.bench import MeasuredRun, efficiency, virtual_cohort, write_tables

ONE = MeasuredRun(1, 0, 40, 0, 40.0, {"roi.total": 0.9}, 36.0, 1.0, 400.0, 300.0, 200.0)
TWO = replace(ONE, workers=2, seconds=25.0)
HALF = replace(ONE, cases=20, seconds=20.0)


def test_efficiency_is_speed_per_worker_beside_that_of_the_fewest_workers() -> None:
    runs = [HALF, ONE, TWO]
    assert efficiency(TWO, runs) == (pytest.approx(0.8), pytest.approx(0.8))
    assert efficiency(ONE, runs) == (None, None)


def test_runs_with_other_cases_per_task_are_not_compared() -> None:
    assert efficiency(replace(TWO, cases_per_task=4), [ONE, TWO, replace(TWO, cases_per_task=4)]) == (None, None)


def test_table_csv_and_plot_hold_the_same_figures(tmp_path: Path) -> None:
    text = write_tables([HALF, ONE, TWO], 0.25, tmp_path)
    with (tmp_path / "bench.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["cases_per_minute"]) for row in rows] == [60.0, 60.0, 96.0]
    assert "| 2 | chosen | 40 | 0 | 25.0 | 0.62 | 96.0 | 48.0 | 0.80 | 0.80 | 10.0 | 300 + 200 |" in text
    assert "0.25 s per case" in text
    assert (tmp_path / "bench.svg").read_text().startswith("<?xml")


def test_virtual_cases_are_different_cases_of_different_patients_with_digests_of_their_own() -> None:
    cases = [Case(f"P{n}_CT_GTV", f"P{n}", "CT", "GTV", f"{n}.series.json", f"{n}.dcm") for n in range(3)]
    virtual = virtual_cohort(cases, 100)
    assert len({case.case_id for case in virtual}) == len({case.digest for case in virtual}) == 100
    assert len({case.patient_id for case in virtual}) == 100
    assert {case.image for case in virtual} == {case.image for case in cases}


@pytest.mark.parametrize(
    ("workers", "message"), [("0,1", "--workers 0,1: expected one or more"), ("two", "'two', exp")]
)
def test_a_number_of_workers_that_cannot_be_is_named(
    workers: str, message: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert message in refused("bench", tmp_path, "--workers", workers, "--out", tmp_path / "out")


@pytest.mark.slow
def test_a_folder_of_dicom_is_measured_on_one_and_on_two_workers(tmp_path: Path, refused: Callable[..., str]) -> None:
    made = make_cohort(tmp_path / "made", SynthSection(patients=2, bad_cases=False))
    out = tmp_path / "bench"
    command = [
        "bench", str(made.images), "--virtual", "6", "--workers", "1,2",
        "--cases-per-task", "2", "--out", str(out), "--set", "deep.enabled=false", "--set", "cohort.roi=['GTV-1']",
    ]  # fmt: skip
    printed = subprocess.run([sys.executable, "-m", "prognosis_dask", *command], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    with (out / "bench.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["workers"], row["cases"], row["failed"]) for row in rows] == [
        ("1", "3", "0"), ("1", "6", "0"), ("2", "6", "0"),
    ]  # fmt: skip
    image_mb = sum(path.stat().st_size for path in made.images.rglob("*.dcm")) / 2e6
    assert 0.5 * image_mb < float(rows[2]["read_mb"]) / 6 < 20 * image_mb
    assert 0 < float(rows[2]["driver_share"]) < 1
    assert float(rows[2]["roi.read_s"]) > 0
    assert "choose another --out" in refused(*command)
