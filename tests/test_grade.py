"""The grade from images: network, other features and perceptron validated together, with signal and without."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prognosis_dask.brain.size import SIZE_FEATURES
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import GradeSection, ModelSection, load_job
from prognosis_dask.errors import BucketError, StoreError
from prognosis_dask.features.dataset import build_features
from prognosis_dask.features.stage import Columns
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.network_features import NetworkFeatures
from prognosis_dask.modelling.data.reading import read_tables
from prognosis_dask.modelling.data.sources import dataset_source
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.validation.evaluate import evaluate
from prognosis_dask.modelling.validation.nested import validate
from prognosis_dask.storage.brains import BrainStore
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.storage.volumes import create_volumes, write_volume
from prognosis_dask.workflows.grade import fit_grade, grade_spec, make_volumes
from tests.grade_network_run import JOB, make_prepared_cases
from tests.object_server import _forget_stores
from tests.training_cases import made_volumes

SECTION = GradeSection(epochs=5, patience=0, learning_rate=1e-3)
MODEL = ModelSection(label="grade", classes=("2", "3"), max_features=20, folds=3, repeats=1, halves=0)
FAMILIES = ("size", "radiomics", "network")


def cohort(folder, signal, count=36):
    """Volumes with a class in them, or not; a size that says nothing; radiomics of which one says a little."""
    volumes, labels = made_volumes(count, shape=(6, 12, 12), signal=signal)
    names = tuple(f"case-{number}" for number in range(count))
    create_volumes(folder / "volumes.zarr", names, volumes.shape[1:])
    for name, volume in zip(names, volumes, strict=True):
        write_volume(folder / "volumes.zarr", name, volume)
    X = np.random.default_rng(3).normal(size=(count, 9))
    X[:, 1] += signal * labels
    families = ("size", *["radiomics"] * 8)
    columns = tuple(f"{family}-{number}" for number, family in enumerate(families))
    table = FeatureTable(X, columns, families, ("",) * 9, names, names, Classes(labels, ("2", "3")))
    return table, NetworkFeatures(str(folder / "volumes.zarr"), SECTION).of_folds()


def measured(table, extend, seeds=(0,)):
    """Held-out measures by procedure, averaged over the seeds of the folds."""
    found = {}
    for seed in seeds:
        spec = grade_spec(replace(MODEL, seed=seed), FAMILIES)
        rule = spec.validation
        results = validate(
            table, spec.procedure, ValidationRule(folds=rule.folds, repeats=rule.repeats, seed=rule.seed), extend=extend
        )
        tables = evaluate(table, results)
        for row in tables["measures"]:
            found.setdefault((row["procedure"], row["measure"]), []).append(row["value"])
    return {key: float(np.mean(values)) for key, values in found.items()}, tables


def test_a_planted_grade_is_found_in_held_out_cases_and_told_in_full(tmp_path):
    table, extend = cohort(tmp_path, signal=1.0)
    values, tables = measured(table, extend)
    assert values["network", "auc"] > 0.9
    assert values["all", "auc"] > 0.9
    assert values["network", "balanced_accuracy"] > 0.75
    assert values["size", "auc"] < 0.75  # what says nothing is not lifted by what is beside it
    counted = [row for row in tables["confusion"] if row["procedure"] == "all"]
    assert sum(row["cases"] for row in counted) == pytest.approx(36)
    assert {row["procedure"] for row in tables["calibration"]} == {*FAMILIES, "all"}


@pytest.mark.slow
def test_without_a_signal_nothing_is_found(tmp_path):
    table, extend = cohort(tmp_path, signal=0.0)
    values, _ = measured(table, extend, seeds=(0, 1, 2))
    assert 0.3 < values["network", "auc"] < 0.7
    assert 0.3 < values["all", "auc"] < 0.7


def test_the_second_label_is_learnt_from_the_same_table():
    """As the head of jobs/lgg_1p19q.toml says: the column with a slash in its name, and its values with slashes."""
    job = load_job(
        Path(__file__).parents[1] / "jobs" / "lgg_1p19q.toml",
        ['model.label="1p/19q"', 'model.classes=["n/n", "d/d"]'],
    )
    status = ["d/d", "n/n", "n/n", "d/d", "n/n"]
    cases = [
        Case(f"c{n}", f"P{n}", "MR", "tumour", "i", "m", covariates={"Grade": str(2 + n % 2), "1p/19q": value})
        for n, value in enumerate(status)
    ]
    outcomes = {case.case_id: TaskResult(case.case_id, "brain", "d", None, {}, {"values": [1.0] * 8}) for case in cases}
    dataset = build_features(cases, {"brain": Columns(SIZE_FEATURES)}, {"brain": outcomes}, attributes={"settings": {}})
    table = read_tables([dataset_source(dataset, "the run")], grade_spec(job.model, ("size",))).table
    assert table.endpoint.names == ("n/n", "d/d")
    assert [table.endpoint.names[i] for i in table.endpoint.label] == status


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of prepared brains, and their feature dataset."""
    folder = tmp_path_factory.mktemp("prepared")
    return folder, make_prepared_cases(folder)


def test_a_volumes_digest_changes_with_what_the_network_would_see(prepared, tmp_path):
    folder, dataset = prepared
    names = [*map(str, dataset["case"].values[:3]), "never prepared"]
    shutil.copytree(folder / "brain", tmp_path / "brain")

    def digests(section=JOB.grade):
        return make_volumes(tmp_path / "brain", tmp_path / "volumes.zarr", names, section)

    first = digests()
    assert len(set(first)) == 4
    assert first[3] == ""
    assert digests() == first
    brains = BrainStore(tmp_path / "brain")
    held = brains.read(names[1])
    brains.write(names[1], replace(held, image=held.image * 2), {})
    assert [new == old for new, old in zip(digests(), first, strict=True)] == [True, False, True, True]
    assert not {*digests(replace(JOB.grade, input="brain"))[:3]} & {*first}


def test_a_prepared_brain_that_was_damaged_later_is_told_and_not_left_out(prepared, tmp_path):
    folder, dataset = prepared
    shutil.copytree(folder / "brain", tmp_path / "brain")
    held = Path(BrainStore(tmp_path / "brain").folder("case-3"))
    (held / "tumour.nii.gz").write_bytes(b"edited")
    with pytest.raises(StoreError, match=rf"1 prepared brain missing or damaged, the first in {held}: remove"):
        fit_grade(JOB, dataset, tmp_path)


def test_cases_whose_brain_could_not_be_prepared_are_counted_as_left_out(prepared, tmp_path):
    folder, dataset = prepared
    shutil.copytree(folder / "brain", tmp_path / "brain")
    failed = dataset["case"].values[2:]
    shutil.rmtree(BrainStore(tmp_path / "brain").folder(failed[0]))  # the others have brains of an earlier run
    values = dataset["size"].where(~dataset["case"].isin(failed))
    summary = fit_grade(JOB, dataset.assign(size=values), tmp_path)
    assert summary["left_out"] == {"features-not-finite": 12}
    assert "1 patients of class 2: a fold of 2 would have none" in summary["not_fitted"]
    assert not (tmp_path / "networks").exists()  # which is told before a network is trained


def test_every_family_is_compared_alone_and_with_the_others():
    spec = grade_spec(MODEL, FAMILIES)
    assert list(spec.procedure) == ["size", "radiomics", "network", "all"]
    assert spec.final == "all"
    assert {procedure.learner for procedure in spec.procedure.values()} == {"mlp"}
    assert (spec.procedure["size"].selector, spec.procedure["network"].selector) == ("", "svm-rfe")
    assert spec.procedure["all"].forced == ("size",)  # a few numbers with a meaning are not selected away
    assert spec.procedure["all"].n_features == (2, 5, 10)
    assert grade_spec(MODEL, ("network",)).final == "network"


def test_a_prepared_brain_that_its_bucket_does_not_give_is_not_told_as_damaged(
    prepared, tmp_path, object_server, monkeypatch
):
    """One that is throttled for ever; one that is gone is told as before."""
    folder, dataset = prepared
    monkeypatch.setattr("prognosis_dask.objects.address.RETRIES", 1)
    _forget_stores()
    object_server.make_bucket("results")
    object_server.fill("results", "run/brain/", folder / "brain")
    names = list(map(str, dataset["case"].values[:2]))
    held = f"{BrainStore('s3://results/run/brain').folder(names[1])}/tumour.nii.gz"

    def digests():
        return make_volumes("s3://results/run/brain", tmp_path / "volumes.zarr", names, JOB.grade)

    whole, path = digests(), held.removeprefix("s3:/")
    object_server.weather.refuse = lambda method, asked: (503, "SlowDown") if asked == path else None
    with pytest.raises(BucketError, match=rf"{held}: the bucket refuses just this object \(SlowDown\)"):
        digests()
    object_server.weather.fine()
    object_server.send("DELETE", path)
    assert digests() == [whole[0], ""]
