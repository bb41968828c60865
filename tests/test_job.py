"""The job file: what is wrong is named with what was expected; digests tell what would change a value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prognosis_dask.config.job import DeepSection, Job, digest, load_job
from prognosis_dask.errors import JobError

JOBS = sorted((Path(__file__).parents[1] / "jobs").glob("*.toml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "some.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_job_that_comes_with_the_project_is_valid_and_its_files_are_there(path: Path) -> None:
    job = load_job(path)
    assert job.name == path.stem
    assert job.title
    params = job.radiomics.params
    assert all(Path(file).is_file() for file in ([params] if isinstance(params, str) else params.values()) if file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae = 'x'", r"unknown key nmae; did you mean name\?"),
        ("[frames]\nwindw = [0, 1]", r"unknown key frames.windw; did you mean frames.window\?"),
        ("[deep]\nzzz = 1", r"unknown key deep.zzz; known here: enabled, engine"),
        ("frames = 3", r"frames is 3, expected a section \[frames\]"),
        ("[frames]\nplacement = 'left'", "frames.placement is 'left', expected one of 'centred', 'reference'"),
        ("[frames]\nwindow = [1.0]", r"frames.window is \[1.0\], expected two numbers, the lower one first, or none"),
        ("[frames]\nwindow = [200, -100]", r"frames.window is \[200.0, -100.0\], expected two numbers, the lower one"),
        ("[frames]\nwindow = ['a', 'b']", "frames.window is 'a', expected a number"),
        ("[deep]\nbatch_size = 0", "deep.batch_size is 0, expected one or more"),
        ("[deep]\nbatch_size = true", "deep.batch_size is True, expected a whole number"),
        ("[deep]\nenabled = 1", "deep.enabled is 1, expected true or false"),
        ("[grade]\ncross_fit = 1", "grade.cross_fit is 1, expected zero, or two or more"),
        ("[image]\nmargin_mm = -1", "image.margin_mm is -1.0, expected zero or more"),
        ("name = '../other'", "name is '../other', expected a name that a folder can have"),
        ("name = '..'", "name is '..', expected a name that a folder can have"),
        ("[cohort]\ncases = 'a.csv'\nsources = ['b']", "expected one of cohort.cases, cohort.sources, synth.patients"),
        ("[cohort]\nroi = 3", "cohort.roi is 3, expected a list"),
        ("[image]\nmargin_mm = nan", "image.margin_mm is nan, expected a number between"),
        ("[run]\ncase_limit_s = inf", "run.case_limit_s is inf, expected a number between"),
        ("[model]\nseed = 99999999999999999999", "model.seed is 9+, expected a number between"),
        ("name = ", "is not TOML"),
    ],
)
def test_a_mistake_in_the_job_is_named_with_what_was_expected(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=message):
        load_job(write(tmp_path, text))


def test_paths_are_seen_from_the_job_file_and_overrides_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = write(tmp_path, "[cohort]\nclinical = 'c.csv'\n[deep]\nweights = 'file:w.params'\n[radiomics]\nparams = ''")
    job = load_job(path, ["cohort.sources=images", "run.out=out"])
    assert job.cohort.clinical == str(tmp_path / "c.csv")
    assert job.deep.weights == f"file:{tmp_path / 'w.params'}"
    assert job.radiomics.params == ""
    assert job.cohort.sources == (str(tmp_path / "here" / "images"),)
    assert job.run.out == str(tmp_path / "here" / "out")
    assert load_job(path, ["deep.weights=untrained:3"]).deep.weights == "untrained:3"


def test_overrides_are_toml_or_plain_text(tmp_path: Path) -> None:
    job = load_job(
        write(tmp_path, ""), ["deep.batch_size=4", "cohort.roi=['GTV','HTV']", "cohort.collection=opc", "title=A b"]
    )
    assert (job.deep.batch_size, job.cohort.roi, job.cohort.collection, job.title) == (4, ("GTV", "HTV"), "opc", "A b")
    with pytest.raises(JobError, match=r"expected section.key=value"):
        load_job(write(tmp_path, ""), ["deep.batch_size"])
    with pytest.raises(JobError, match=r"'name' is not a section"):
        load_job(write(tmp_path, "name = 'x'"), ["name.first=1"])


def test_a_digest_changes_with_any_part_and_with_nothing_else() -> None:
    section = DeepSection()
    assert digest("a", section) == digest("a", replace(section))
    assert digest("a", section) != digest("b", section)
    assert digest("a", section) != digest("a", replace(section, output="pooled"))
    assert digest(Job("x")) == digest(Job("x"))


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("modl.folds=3", "model"),
        ("model.fold=3", "model.folds"),
        ("model.roi=GTV", "cohort.roi"),
        ("folds=3", "model.folds"),
    ],
)
def test_sections_and_keys_of_other_sections_are_suggested_too(setting: str, nearest: str) -> None:
    with pytest.raises(JobError, match=rf"did you mean {nearest}\?"):
        load_job(JOBS[0].with_name("demo.toml"), [setting])
