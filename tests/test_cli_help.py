"""What the command line says by itself: each command's help, and what is left after Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prognosis_dask.cli.main import EXIT_STOPPED, main
from tests.dask_processes import wait_for


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_list_of_commands_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert "To begin: prognosis init FOLDER" in told(capsys)
    with pytest.raises(SystemExit):
        main([])
    assert "To begin: prognosis init FOLDER" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("command", "does"),
    [
        ("index", "Crawl folders of images and masks into a table of cases."),
        ("run", "Run a job up to its report; repeat the command to resume."),
        ("features", "Radiomics of one image and its mask, without a job."),
        ("maps", "Radiomics of each voxel's neighbourhood, as images on the scan's grid."),
        ("fit", "Compare models on the features of a run or a table, save one, report."),
        ("compare", "Test which procedures differ, on the same folds."),
        ("validate", "Validate a frozen model on another cohort, or procedures on this one."),
        ("predict", "Predict risk or class of the cases of a table or a run by a frozen model."),
        ("serve", "Web pages to upload one scan and predict it by frozen models."),
        ("bench", "Measure patients per minute, images to features, on this machine."),
        ("reproducibility", "Which features agree between two measurements of the same patients."),
        ("robustness", "Which features of a run survive small changes of image and mask."),
    ],
)
def test_a_command_that_writes_says_what_it_does_and_takes_o_for_where(
    command: str, does: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, command)
    assert does in text
    assert any(f"-o {name}, --out {name}" in text for name in ("DIR", "OUT", "FILE"))


def test_a_command_that_begins_anew_does_not_claim_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prognosis_dask", "synth", str(tmp_path / "made"), "--patients", "5000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as made:
        wait_for((tmp_path / "made" / "synth.json").exists)
        made.send_signal(signal.SIGINT)
        _, errors = made.communicate()
    assert (made.returncode, errors) == (EXIT_STOPPED, "\nprognosis: stopped.\n")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["fi"], "fit"),
        (["synth", "--study", ""], "chest brain"),
        (["synth", "--pat"], "--patients"),
        (["completion", ""], "bash zsh fish"),
        (["weights", ""], "convert keras check"),
        (["weights", "check", "--ex"], "--example"),
    ],
)
def test_bash_completes_commands_options_and_choices(
    typed: list[str], offered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["completion", "bash"])
    words = " ".join(f"'{word}'" for word in ["prognosis", *typed])
    asked = f'COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _prognosis; echo "${{COMPREPLY[@]}}"'
    script = f"{capsys.readouterr().out}\n{asked}"
    answered = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (answered.stdout.strip(), answered.stderr) == (offered, "")
