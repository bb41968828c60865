"""Deep features learnt within each fold: from its training cases alone, once, and kept."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from prognosis_dask.config.job import GradeSection
from prognosis_dask.errors import StatisticsError, StoreError
from prognosis_dask.modelling.data import network_features
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.network_features import FILE, NetworkFeatures
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.validation.splitting import split_patients
from prognosis_dask.networks import training
from prognosis_dask.networks.training import read_trained
from prognosis_dask.storage.volumes import create_volumes, read_volumes, write_volume
from tests.training_cases import made_volumes

SECTION = GradeSection(epochs=3, patience=0, learning_rate=1e-3, cross_fit=0)
TRAIN = np.arange(14)


def cohort(folder, count=20, signal=1.0):
    """A store of made volumes and a table of one feature that says nothing."""
    volumes, labels = made_volumes(count, signal=signal)
    names = tuple(f"case-{number}" for number in range(count))
    store = folder / "volumes.zarr"
    create_volumes(store, names, volumes.shape[1:])
    for name, volume in zip(names, volumes, strict=True):
        write_volume(store, name, volume)
    X = np.random.default_rng(5).normal(size=(count, 1))
    return store, FeatureTable(X, ("age",), ("clinical",), ("",), names, names, Classes(labels, ("II", "III")))


def test_a_folds_features_depend_on_its_training_cases_and_on_the_case_itself_alone(tmp_path):
    # with all that a training chooses by itself: held-back cases, the epoch that is kept, cross-fitting
    section = replace(SECTION, epochs=2, patience=1, cross_fit=2)
    store, table = cohort(tmp_path)

    def features(flipped=()):
        label = table.endpoint.label.copy()
        label[list(flipped)] = 1 - label[list(flipped)]
        known = replace(table, endpoint=Classes(label, ("II", "III")))
        return NetworkFeatures(str(store), section)(known, TRAIN).columns(("network",)).X

    first = features()
    np.testing.assert_array_equal(features(flipped=range(14, 20)), first)
    assert (features(flipped=(0, 1)) != first).any(axis=1).all()
    for number in range(15, 20):
        write_volume(store, f"case-{number}", np.full((8, 16, 16), 9.0, np.float32))
    changed = (features() != first).any(axis=1)
    assert changed.tolist() == [False] * 15 + [True] * 5


def test_features_are_a_family_of_their_own_beside_the_others(tmp_path):
    store, table = cohort(tmp_path, count=8)
    extended = NetworkFeatures(str(store), replace(SECTION, epochs=1))(table, np.arange(6))
    assert extended.features[:2] == ("age", "dense512_000")
    assert extended.families == ("clinical", *["network"] * 544)
    np.testing.assert_array_equal(extended.X[:, 0], table.X[:, 0])
    assert extended.X.dtype == np.float64


@pytest.fixture
def passes(monkeypatch):
    """Which network has taken which case, an entry each time."""
    load, seen = training.load_learner, []

    def noting(network, values, section):
        learner = load(network, values, section)
        run, name = learner.run, values["output.weight"].tobytes()

        def noted(volumes):
            seen.extend((name, volume.tobytes()) for volume in volumes)
            return run(volumes)

        learner.run = noted
        return learner

    monkeypatch.setattr(training, "load_learner", noting)
    return seen


@pytest.mark.parametrize(
    ("cross_fit", "rows", "expected"),
    [(0, 14, 20), (0, 20, 20), (3, 14, 20 + 3 * 14), (3, 20, 20 + 3 * 20)],
)
def test_no_case_goes_through_a_network_twice(passes, tmp_path, cross_fit, rows, expected):
    # a network takes its own training cases, for the scale, and those that it gives features to
    store, table = cohort(tmp_path)
    NetworkFeatures(str(store), replace(SECTION, epochs=1, cross_fit=cross_fit))(table, np.arange(rows))
    assert set(Counter(passes).values()) == {1}
    assert len(passes) == expected


@pytest.mark.parametrize("cross_fit", [0, 2])
def test_features_are_those_of_networks_trained_and_run_one_by_one(tmp_path, cross_fit):
    store, table = cohort(tmp_path)
    owner = np.array([f"P{number // 4 * 2 + number % 2}" for number in range(20)])  # two cases each, of one class
    rows, held_out = np.arange(12), np.arange(12, 20)
    table, section = replace(table, patient_ids=tuple(owner)), replace(SECTION, epochs=1, cross_fit=cross_fit)
    found = NetworkFeatures(str(store), section)(table, rows).columns(("network",)).X
    volumes, label = read_volumes(store, table.case_ids), table.endpoint.label

    def features(trained_on, asked):
        trained, _ = training.train(volumes[trained_on], label[trained_on], owner[trained_on].tolist(), section)
        return training.run_network(trained, volumes[asked], section)[0]

    np.testing.assert_array_equal(found[held_out], features(rows, held_out))
    if not cross_fit:
        np.testing.assert_array_equal(found[rows], features(rows, rows))
        return
    second = split_patients(table.rows(rows), 2, [section.seed]) == 1
    for asked, others in ((rows[second], rows[~second]), (rows[~second], rows[second])):
        assert not {*owner[asked]} & {*owner[others]}  # all cases of a patient are on one side
        np.testing.assert_array_equal(found[asked], features(others, asked))


def test_a_fold_is_trained_once_for_the_same_cases_volumes_and_settings(tmp_path):
    store, table = cohort(tmp_path)
    expected = NetworkFeatures(str(store), SECTION)(table, TRAIN)
    ahead = NetworkFeatures(str(store), SECTION, folder=str(tmp_path / "networks"))
    ahead(table.columns(np.arange(0)), TRAIN)
    shutil.rmtree(store)  # nothing is read, nothing is trained again
    np.testing.assert_array_equal(ahead(table, TRAIN).X, expected.X)
    with pytest.raises(StoreError, match="no store of volumes"):
        ahead(table, np.arange(4, 18))
    with pytest.raises(StoreError, match="no store of volumes"):
        replace(ahead, section=replace(SECTION, seed=1))(table, TRAIN)
    with pytest.raises(StoreError, match="no store of volumes"):
        replace(ahead, source="other images")(table, TRAIN)


def test_the_final_network_is_kept_and_gives_new_cases_the_same_features(tmp_path):
    store, table = cohort(tmp_path)
    extend = NetworkFeatures(str(store), SECTION, folder=str(tmp_path / "networks"))
    expected = extend(table, np.arange(20))
    trained = read_trained(tmp_path / "networks" / FILE)
    assert expected.source == {"network.sha256": trained.sha256}
    np.testing.assert_array_equal(
        extend.extend_by(table.rows(np.arange(17, 20)), trained).X[:, 1:], expected.X[17:, 1:]
    )


@pytest.fixture
def trainings(monkeypatch):
    """The patients of each network that is trained."""
    done = []

    def noting(volumes, labels, patients, section):
        done.append(patients)
        return training.train(volumes, labels, patients, section)

    monkeypatch.setattr(network_features, "train", noting)
    return done


def test_the_final_network_is_trained_again_when_what_it_learnt_from_changed_and_not_else(trainings, tmp_path):
    store, table = cohort(tmp_path)
    folder, everyone = tmp_path / "networks", np.arange(20)
    section = replace(SECTION, epochs=1, cross_fit=2)
    extend = NetworkFeatures(str(store), section, "the images", str(folder))
    first = extend(table, everyone)
    assert len(trainings) == 3
    for same in (extend, replace(extend, section=replace(section, clinical=("age",)))):
        again = same(table, everyone)
        np.testing.assert_array_equal(again.X, first.X)
        assert again.source == first.source
    assert len(trainings) == 3

    label = table.endpoint.label.copy()
    label[:2] = label[:2][::-1]
    for number, (other, known) in enumerate(
        (
            (extend, replace(table, endpoint=Classes(label, ("II", "III")))),
            (extend, replace(table, patient_ids=("case-1", *table.patient_ids[1:]))),
            (replace(extend, source="other images"), table),
            (replace(extend, section=replace(section, learning_rate=2e-3)), table),
        )
    ):
        held = tmp_path / f"networks-{number}"
        shutil.copytree(folder, held)
        trainings.clear()
        made = replace(other, folder=str(held))(known, everyone)
        assert len(trainings) == 3
        assert made.source == {"network.sha256": read_trained(held / FILE).sha256}
    trainings.clear()
    np.testing.assert_array_equal(replace(extend, folder=str(held))(table, everyone).X, first.X)
    assert len(trainings) == 3  # the features were there, the network was the other one by then


@pytest.mark.parametrize("damaged", ["*.npy", FILE])
def test_what_a_broken_disk_left_of_a_training_is_made_anew(trainings, tmp_path, damaged):
    store, table = cohort(tmp_path, count=8)
    extend = NetworkFeatures(str(store), replace(SECTION, epochs=1), folder=str(tmp_path / "networks"))
    first = extend(table, np.arange(8))
    (path,) = (tmp_path / "networks").glob(damaged)
    for content in (b"", path.read_bytes()[:-7]):
        path.write_bytes(content)
        trainings.clear()
        np.testing.assert_array_equal(extend(table, np.arange(8)).X, first.X)
        assert len(trainings) == 1


def test_survival_and_more_than_two_classes_are_refused(tmp_path):
    store, table = cohort(tmp_path, count=6)
    extend = NetworkFeatures(str(store), SECTION)
    for endpoint in (Survival(np.ones(6), np.ones(6, bool)), Classes(np.arange(6) % 3, ("I", "II", "III"))):
        with pytest.raises(StatisticsError, match="learns two classes"):
            extend(replace(table, endpoint=endpoint), np.arange(4))


def test_the_store_keeps_volumes_of_a_cohort_that_grows_and_tells_what_it_lacks(tmp_path):
    store = tmp_path / "volumes.zarr"
    volume = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    create_volumes(store, ["a", "b"], volume.shape)
    write_volume(store, "a", volume)
    create_volumes(store, ["b", "a", "c"], volume.shape)
    np.testing.assert_array_equal(read_volumes(store, ["a"])[0], volume)
    with pytest.raises(StoreError, match=r"no volume of 2 cases \(b, d\)"):
        read_volumes(store, ["b", "a", "d"])
    create_volumes(store, ["a"], (4, 4, 4))  # another input: nothing of the old one can serve
    with pytest.raises(StoreError, match="no volume of 1 case"):
        read_volumes(store, ["a"])


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_volume_that_another_runs_worker_wrote_late_is_not_learnt_from(tmp_path, object_server, place):
    """Also one that it put into the row that was its case's before the cohort changed."""
    object_server.make_bucket("results")
    store = str(tmp_path / "volumes.zarr") if place == "folder" else "s3://results/run/volumes.zarr"
    ours, theirs = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    create_volumes(store, ["a", "b"], ours.shape)
    contents = {name: write_volume(store, name, ours) for name in "ab"}
    np.testing.assert_array_equal(read_volumes(store, ["b"], contents)[0], ours)
    write_volume(store, "b", theirs)
    with pytest.raises(StoreError, match=r"volumes.zarr, the volume of b: it was written by another run.*again"):
        read_volumes(store, ["a", "b"], contents)
    learnt_from, table = cohort(tmp_path / "cohort")
    with pytest.raises(StoreError, match="the volume of case-3: it was written by another run"):
        NetworkFeatures(str(learnt_from), SECTION, contents={"case-3": contents["a"]})(table, TRAIN)


def test_a_volume_of_which_any_byte_is_another_one_is_damaged(tmp_path):
    store = tmp_path / "volumes.zarr"
    volume = np.random.default_rng(1).normal(size=(4, 5, 6)).astype(np.float32)
    create_volumes(store, ["a"], volume.shape)
    write_volume(store, "a", volume)
    chunk = store / "volume" / "c" / "0" / "0" / "0" / "0"
    whole = chunk.read_bytes()
    for at in range(0, len(whole), 7):
        chunk.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StoreError, match=r"the volume of a is damaged .*run the job again"):
            read_volumes(store, ["a"])
    create_volumes(store, ["a", "b"], volume.shape)  # as the next run of a cohort that has grown does
    write_volume(store, "a", volume)
    np.testing.assert_array_equal(read_volumes(store, ["a"])[0], volume)
