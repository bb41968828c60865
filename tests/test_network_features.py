"""Deep features learnt within each fold: from its training cases alone, once, and kept."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from prognosis_dask.deep.grade_file import read_trained
from prognosis_dask.errors import StatisticsError, StoreError
from prognosis_dask.job import GradeSection
from prognosis_dask.statistics.endpoint import Classes, Survival
from prognosis_dask.statistics.network_features import FILE, NetworkFeatures
from prognosis_dask.statistics.table import FeatureTable
from prognosis_dask.store.volumes import create_volumes, read_volumes, write_volume
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


def test_a_folds_network_has_seen_its_training_cases_alone(tmp_path):
    store, table = cohort(tmp_path)
    extended = NetworkFeatures(str(store), SECTION)(table, TRAIN)
    assert extended.features[:2] == ("age", "dense512_000")
    assert set(extended.families) == {"clinical", "network"}
    # other held-out cases, with other classes
    for number in range(14, 20):
        write_volume(store, f"case-{number}", np.full((8, 16, 16), 9.0, np.float32))
    label = table.endpoint.label.copy()
    label[14:] = 1 - label[14:]
    other = NetworkFeatures(str(store), SECTION)(replace(table, endpoint=Classes(label, ("II", "III"))), TRAIN)
    np.testing.assert_array_equal(other.X[:14], extended.X[:14])
    assert (other.X[14:] != extended.X[14:]).any()
    # other training cases
    label = table.endpoint.label.copy()
    label[:2] = 1 - label[:2]
    other = NetworkFeatures(str(store), SECTION)(replace(table, endpoint=Classes(label, ("II", "III"))), TRAIN)
    assert (other.X[:14] != extended.X[:14]).any()


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
