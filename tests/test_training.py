"""Training of the grade network: repeatable anywhere, honest about what it holds back, kept in a safe file."""

import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, get_worker

from prognosis_dask.config.job import GradeSection
from prognosis_dask.errors import ClusterError, MissingExtraError, StatisticsError, WeightsError
from prognosis_dask.execution.cluster import map_on
from prognosis_dask.networks.training import (
    Epoch,
    class_weights,
    hold_back,
    read_trained,
    run_network,
    train,
    trained_bytes,
)
from prognosis_dask.networks.weights import write_safetensors
from tests.training_cases import ENGINES, installed, made_volumes, need

SHORT = GradeSection(epochs=2, patience=0, learning_rate=1e-3)


def patients(count):
    return [f"P{number}" for number in range(count)]


@pytest.mark.parametrize("engine", ENGINES)
def test_it_overfits_eight_cases_to_zero_loss(engine, request):
    need(engine, request)
    volumes, labels = made_volumes(8, signal=0.0)
    section = GradeSection(engine=engine, epochs=80, patience=0, learning_rate=1e-3, augment=False)
    trained, _ = train(volumes, labels, patients(8), section)
    _, probability = run_network(trained, volumes, section)
    assert (-np.log(np.where(labels, probability, 1 - probability))).max() < 1e-3
    assert trained.curve[-1].training_loss < trained.curve[0].training_loss


def test_it_finds_a_planted_signal_in_cases_that_it_has_not_seen():
    volumes, labels = made_volumes(40, signal=1.0)
    section = replace(SHORT, epochs=6)
    trained, _ = train(volumes[:20], labels[:20], patients(20), section)
    _, probability = run_network(trained, volumes[20:], section)
    assert probability[labels[20:] == 1].min() > probability[labels[20:] == 0].max()


@pytest.fixture(scope="module")
def trained():
    volumes, labels = made_volumes(12)
    return train(volumes, labels, patients(12), GradeSection(epochs=3, patience=3))[0]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(trained):
    volumes, labels = made_volumes(12)
    np.random.seed(7)  # what the process has drawn is of no matter
    again, _ = train(volumes, labels, patients(12), GradeSection(epochs=3, patience=3))
    assert again.curve == trained.curve
    assert again.sha256 == trained.sha256
    other, _ = train(volumes, labels, patients(12), GradeSection(epochs=3, patience=3, seed=1))
    assert other.sha256 != trained.sha256


@pytest.mark.slow
def test_folds_on_one_worker_and_on_two_have_the_same_curves(trained):
    volumes, labels = made_volumes(12)
    section = GradeSection(epochs=3, patience=3)
    found = []
    for workers in (1, 2):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0")
        with cluster, Client(cluster) as client:
            found.append(
                list(map_on(client)(train, *zip(*[(volumes, labels, patients(12), section)] * 3, strict=True)))
            )
    for one, _ in [*found[0], *found[1]]:
        assert one.curve == trained.curve
        assert one.sha256 == trained.sha256


def test_training_ends_when_the_held_back_loss_has_not_fallen_and_the_best_epoch_is_kept():
    # nothing to learn: what fits the training cases only makes the others worse
    volumes, labels = made_volumes(16, signal=0.0)
    section = GradeSection(epochs=30, patience=2, learning_rate=1e-3, validation_share=0.25, augment=False)
    trained, _ = train(volumes, labels, patients(16), section)
    losses = [epoch.validation_loss for epoch in trained.curve]
    assert len(losses) < 30
    assert trained.epoch == 1 + int(np.argmin(losses)) == len(losses) - 2
    shorter, _ = train(volumes, labels, patients(16), replace(section, epochs=trained.epoch))
    assert shorter.sha256 == trained.sha256


def test_a_case_has_the_same_features_whatever_is_beside_it(trained):
    volumes, _ = made_volumes(4)
    features, probability = run_network(trained, volumes, SHORT)
    assert features.shape == (4, 544)
    alone, own = run_network(trained, volumes[2:3], SHORT)
    np.testing.assert_array_equal(alone[0], features[2])
    assert own[0] == probability[2]


def test_features_are_in_standard_deviations_of_the_cases_trained_on(trained):
    volumes, labels = made_volumes(12)
    features, _ = run_network(trained, volumes, SHORT)
    own = train(volumes, labels, patients(12), GradeSection(epochs=3, patience=3))[1]
    np.testing.assert_array_equal(own, features)
    alive = features.std(axis=0) > 0
    assert alive.sum() > 100
    np.testing.assert_allclose(features[:, alive].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features[:, alive].std(axis=0), 1, atol=1e-4)


def test_balance_weighs_the_classes_alike():
    labels = np.array([0] * 9 + [1] * 3)
    weights = class_weights(labels, np.arange(10), balance=True)
    assert weights[:9].sum() == pytest.approx(5)
    assert weights[9] == pytest.approx(5)  # the only one of its class among those that train
    assert (class_weights(labels, np.arange(10), balance=False) == 1).all()


def test_held_back_are_whole_patients_of_both_classes():
    owners = [f"P{number // 2}" for number in range(40)]
    labels = np.repeat([0] * 15 + [1] * 5, 2)
    for seed in range(20):
        held = hold_back(labels, owners, 0.2, np.random.default_rng(seed))
        assert [int(held[labels == label].sum()) for label in (0, 1)] == [6, 2]
        assert (held[::2] == held[1::2]).all()
    assert not hold_back(labels, owners, 0.0, np.random.default_rng(0)).any()
    labels[1::2] = 1 - labels[1::2]  # patients with a case of either class count to the first one's
    for seed in range(20):
        held = hold_back(labels, owners, 0.2, np.random.default_rng(seed))
        assert (held[::2] == held[1::2]).all()
        assert [int(held[::2][labels[::2] == label].sum()) for label in (0, 1)] == [3, 1]


@pytest.mark.parametrize(
    ("patience", "says"),
    [
        (0, "the second class has 0 training patients: the network needs more"),
        (2, r"the second class has 1 training patient, 1 of them to be held back \(none with grade.patience = 0\)"),
    ],
)
def test_a_class_without_enough_patients_is_refused(patience, says):
    volumes, _ = made_volumes(4)
    labels = np.array([0, 0, 0, int(patience > 0)])
    with pytest.raises(StatisticsError, match=says):
        train(volumes, labels, patients(4), replace(SHORT, patience=patience))


@pytest.mark.parametrize("patience", [0, 1])
def test_a_training_that_runs_away_is_told(patience):
    # parameters without a value, whose features are all 0 in Gluon: models would pass over them in silence
    volumes, labels = made_volumes(8)
    section = replace(SHORT, learning_rate=1e20, patience=patience)
    with pytest.raises(StatisticsError, match=r"ran away \(losses .*smaller grade.learning_rate than 1e\+20"):
        train(volumes, labels, patients(8), section)


def test_the_file_gives_back_the_network_bit_by_bit(trained, tmp_path):
    (tmp_path / "network.safetensors").write_bytes(trained_bytes(replace(trained, origin="these cases")))
    again = read_trained(tmp_path / "network.safetensors")
    assert again.sha256 == trained.sha256
    assert (again.network, again.curve, again.epoch) == (trained.network, trained.curve, trained.epoch)
    assert again.origin == "these cases"
    unwatched = replace(trained, curve=(Epoch(0.5, math.nan),), epoch=1)
    (tmp_path / "network.safetensors").write_bytes(trained_bytes(unwatched))
    assert math.isnan(read_trained(tmp_path / "network.safetensors").curve[0].validation_loss)


def test_a_file_that_is_no_network_is_refused(trained, tmp_path):
    path = tmp_path / "network.safetensors"
    with pytest.raises(WeightsError, match="cannot read the grade network"):
        read_trained(path)
    path.write_bytes(b"no such file")
    with pytest.raises(WeightsError, match="holds no grade network"):
        read_trained(path)
    metadata = {"input_shape": "[8, 16, 16]", "epoch": "1", "curve": '[["0.5", "0.5"]]'}
    path.write_bytes(write_safetensors({"dense_1.weight": np.ones((2, 2), np.float32)}, metadata))
    with pytest.raises(WeightsError, match=r"conv_1\.weight.* lack or differ"):
        read_trained(path)
    spoilt = {**trained.values, "features.usual": trained.scale, "output.bias": np.array([np.nan], np.float32)}
    path.write_bytes(write_safetensors(spoilt, metadata))
    with pytest.raises(WeightsError, match="not finite"):
        read_trained(path)


def test_a_gpu_that_is_not_there_and_an_engine_that_is_not_installed_are_told():
    volumes, labels = made_volumes(4)
    with pytest.raises(ClusterError, match="finds none here"):
        train(volumes, labels, patients(4), replace(SHORT, device="gpu"))
    missing = "torch" if installed() == "gluon" else "gluon"
    with pytest.raises(MissingExtraError, match="not installed here"):
        train(volumes, labels, patients(4), replace(SHORT, engine=missing))


def name_of_worker(_):
    return get_worker().name


def test_what_needs_a_gpu_runs_on_workers_that_have_one_and_large_items_are_sent_without_a_warning(capfd, monkeypatch):
    options = {"nthreads": 1, "silence_logs": 50}
    workers = {"plain": {}, "card": {"resources": {"GPU": 1}}}
    specs = {name: {"cls": Worker, "options": {**options, **extra}} for name, extra in workers.items()}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(specs, scheduler=scheduler) as cluster, Client(cluster) as client:
        assert set(map_on(client, gpu=True)(name_of_worker, range(8))) == {"card"}
        assert set(map_on(client)(name_of_worker, range(8))) == {"card", "plain"}
        monkeypatch.setattr("prognosis_dask.execution.cluster.LOG_EVERY", 0.0)
        list(map_on(client)(name_of_worker, range(8)))
        assert "\n3 of 8 tasks done\n" in capfd.readouterr().err, "a few seconds tell no rate"
        monkeypatch.setattr("prognosis_dask.execution.progress.SHORTEST", 0.0)
        list(map_on(client)(name_of_worker, range(8)))
        assert re.search(r"^3 of 8 tasks done, about \d+ s left$", capfd.readouterr().err, re.MULTILINE)
        large = [np.full(2_000_000, 0.5)]  # 16 MB, of which Dask warns: here a warning is an error
        assert list(map_on(client)(len, large)) == list(map_on(client)(partial(len), large)) == [2_000_000]
