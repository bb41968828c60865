"""The package as it is installed: the wheel holds the whole program, and works where there is no checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_runs_a_job_of_its_own_up_to_the_report_away_from_the_checkout() -> None:
    cheap = ["deep.enabled=false", "model.features=radiomics", "model.repeats=1", "model.halves=0"]
    command = [sys.executable, ROOT / "tools" / "try_install.py", "--no-deps", "--patients", "10"]
    command += [part for key in cheap for part in ("--set", key)]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert f"python {sys.version.split()[0]} " in tried.stdout
