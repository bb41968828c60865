"""What stands at the fields of the settings reaches the documentation; keys that have no effect are named."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from prognosis_dask.cli.configuration import documentation
from prognosis_dask.cohort.collections import COLLECTIONS
from prognosis_dask.config.fields import keys_of
from prognosis_dask.config.job import CohortSection, GradeSection, ImageSection, Job, digest, load_job
from prognosis_dask.execution.clusters import SPECS
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.spec import ModelSpec, load_spec
from prognosis_dask.workflows.idle_keys import idle_keys, idle_settings
from prognosis_dask.workflows.run import run

ROOT = Path(__file__).parents[1]


def keys_with_meaning(kind: Any) -> dict[str, str]:
    """Every key of a file by its name, with what is said of it."""
    found = {}
    for key in keys_of(kind).values():
        inner = next((of for of in (key.kind, *get_args(key.kind)) if is_dataclass(of)), None)
        if inner is None:
            found[key.name] = key.meaning
        else:
            found |= {f"{key.name}.{name}": meaning for name, meaning in keys_with_meaning(inner).items()}
    return found


def test_the_page_of_the_configuration_is_made_from_the_code() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == documentation(), "make docs/configuration.md anew: its fourth line says how"


@pytest.mark.parametrize("kind", [Job, ModelSpec, *SPECS.values()], ids=lambda kind: kind.__name__)
def test_every_key_has_a_meaning_and_a_row_of_the_page(kind: type) -> None:
    rows = [line for line in documentation().splitlines() if line.startswith("| `")]
    for name, meaning in keys_with_meaning(kind).items():
        assert meaning.endswith("."), f"{kind.__name__}.{name} has no meaning"
        assert any(row.startswith(f"| `{name.rpartition('.')[2]}` |") and meaning in row for row in rows), name


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.toml")), ids=lambda path: path.stem)
def test_no_job_that_comes_with_the_project_has_a_key_without_effect(path: Path) -> None:
    assert idle_keys(load_job(path)) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "deep = { batch_size = 4 }",
            "deep.batch_size has no effect: on a CPU clips go through the network one by one",
        ),
        (
            "deep = { batch_size = 8 }",
            "deep.batch_size has no effect: on a CPU clips go through the network one by one",
        ),
        ("deep = { enabled = false, batch_size = 4 }", "deep.batch_size has no effect: deep.enabled is false"),
        (
            "brain = { bias_field = false, smooth_fwhm_mm = 4.0 }",
            "brain.bias_field, brain.smooth_fwhm_mm have no effect: brain.enabled is false",
        ),
        ("grade = { epochs = 9 }", "grade.epochs has no effect: grade.enabled is false"),
        (
            "brain = { enabled = true }\ngrade = { enabled = true }\nmodel = { enabled = false }",
            "grade.enabled has no effect: model.enabled is false",
        ),
        (
            "brain = { enabled = true }\ngrade = { enabled = true }\nmodel = { label = 'g', penalizer = 1.0 }",
            "model.penalizer has no effect: with grade.enabled",
        ),
        (
            "brain = { enabled = true }\ngrade = { enabled = true, patience = 0, validation_share = 0.1 }",
            "grade.validation_share has no effect: grade.patience is 0",
        ),
        ("model = { enabled = false, label = 'Grade' }", "model.label has no effect: model.enabled is false"),
        ("model = { classes = ['a', 'b'] }", "model.classes has no effect: model.label names no column"),
        ("model = { label = 'Grade', label_days = 9.0 }", "model.label_days has no effect: model.label is the label"),
        ("model = { selector = 'mrmr', label_days = 9.0 }", "model.label_days has no effect: model.selector = 'mrmr'"),
        ("model = { selector = '', max_features = 9 }", "model.max_features has no effect: without model.selector"),
        ("radiomics = { enabled = false, params = 'p.yaml' }", "radiomics.params has no effect: radiomics.enabled"),
        ("synth = { seed = 1 }", "synth.seed has no effect: synth.patients is 0"),
        ("synth = { patients = 9, matrix = 64 }", "synth.matrix has no effect: the images of"),
        ("synth = { patients = 9 }\ncohort = { clinical = 'c.csv' }", "cohort.clinical has no effect: the synthetic"),
        ("cohort = { cases = 'c.csv', event_column = 'dead' }", "cohort.event_column has no effect: cohort.cases"),
        ("cohort = { sources = ['a'], sheet = 'b' }", "cohort.sheet has no effect: cohort.clinical names no table"),
        ("image = { keep_gaps = true, fill_gaps = true }", "image.fill_gaps has no effect: image.keep_gaps"),
    ],
)
def test_a_key_without_effect_is_named_with_the_reason(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text)
    (found,) = idle_keys(load_job(path))
    assert found.startswith(f"Warning: {line}")


def test_settings_of_a_parameter_file_that_a_job_decides_itself_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("setting: {label: 2, correctMask: true, label_channel: 0, binWidth: 10}\n")
    path = tmp_path / "some.toml"
    path.write_text("radiomics = { params = 'p.yaml' }")
    label, correct = idle_keys(load_job(path))
    assert label.startswith("Warning: label 2 in radiomics.params has no effect")
    assert correct.startswith("Warning: correctMask True in radiomics.params has no effect: image.resample_mask")


ALIVE, GRADES = Survival(np.ones(2), np.ones(2, dtype=bool)), Classes(np.arange(2), ("II", "III"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["x.learner='survival-forest'", "x.penalty=[1.0]"], "x.penalty has no effect: learner 'survival-forest' has"),
        (
            ["x.learner='xgboost'", "x.selector=''", "x.balance_families=true"],
            "x.balance_families has no effect: learner",
        ),
        (["x.selector=''", "x.n_features=[3]"], "x.n_features has no effect: without a selector"),
        (["x.selector='mrmr'", "x.label_days=9.0"], "x.label_days has no effect: selector 'mrmr' needs no label"),
        (
            ["x.n_features=[3]", "x.penalty=[1.0]", "x.inner_folds=4"],
            "x.inner_folds has no effect: the procedure leaves",
        ),
        (["x.bound=false", "x.bound_margin=2.0"], "x.bound_margin has no effect: bound is false"),
        (["x.harmonise=''", "validation.draws=9"], "validation.draws has no effect: prognosis fit and compare"),
        (["x.harmonise=''", "endpoint.classes=['a', 'b']"], "endpoint.classes has no effect: endpoint.label names"),
    ],
)
def test_a_setting_without_effect_is_named_with_the_reason(settings: list[str], line: str) -> None:
    spec = load_spec(None, [f"procedure.{one}" if one.startswith("x.") else one for one in settings])
    (found,) = idle_settings(spec, "nested", ALIVE)
    assert found.startswith(f"Warning: {'procedure.' if line.startswith('x.') else ''}{line}")


def test_settings_that_a_method_or_an_endpoint_does_not_take_are_named() -> None:
    few = ["procedure.x.tune_by='brier'", "validation.repeats=3", "validation.horizons_days=[90]", "site='s'"]
    assert idle_settings(load_spec(None, few), "nested", ALIVE) == []
    by_bootstrap = idle_settings(load_spec(None, few), "bootstrap", GRADES)
    assert by_bootstrap == [
        "Warning: validation.horizons_days has no effect: a class is predicted",
        "Warning: validation.repeats has no effect: validation.method is 'bootstrap'",
        "Warning: procedure.x.tune_by has no effect: classes are tuned by the log loss",
    ]
    assert idle_settings(load_spec(None, ["validation.method='nested'"]), "nested", ALIVE) == []
    (by_fit,) = idle_settings(load_spec(None, ["validation.method='bootstrap'"]), "nested", ALIVE)
    assert by_fit.startswith("Warning: validation.method has no effect: prognosis fit and compare cross-validate")


def test_a_key_of_an_override_and_of_a_job_made_in_python_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("")
    assert idle_keys(load_job(path)) == []
    (by_override,) = idle_keys(load_job(path, ["grade.patience=2"]))
    (made_here,) = idle_keys(replace(load_job(path), grade=GradeSection(patience=3)))
    assert by_override == made_here == "Warning: grade.patience has no effect: grade.enabled is false"


def test_which_keys_are_given_is_no_value(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("[image]\nmargin_mm = 20.0")
    given, default = load_job(path).image, ImageSection()
    assert (given, digest(given), asdict(given)) == (default, digest(default), asdict(default))


def test_the_page_names_every_collection() -> None:
    meaning = keys_of(CohortSection)["collection"].meaning
    assert [name for name in COLLECTIONS if f"`{name}`" not in meaning] == []


def test_keys_that_have_an_effect_are_not_named(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(
        "deep = { device = 'gpu', batch_size = 4 }\nmodel = { label_days = 9.0, max_features = 9 }\n"
        "brain = { enabled = true, bias_field = false }\nsynth = { patients = 3, seed = 2 }\n"
    )
    assert idle_keys(load_job(path)) == []


def test_a_run_begins_with_the_warning(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def say(line: str) -> None:
        raise StopError(line)

    path = tmp_path / "some.toml"
    path.write_text("synth = { patients = 2 }\ndeep = { weights = 'untrained:1', batch_size = 4 }")
    with pytest.raises(StopError, match=r"Warning: deep\.batch_size has no effect"):
        run(load_job(path), out=tmp_path / "run", say=say)
    assert not (tmp_path / "run").exists()
