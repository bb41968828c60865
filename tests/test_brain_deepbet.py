"""Skull stripping by deepbet's networks on torch, on real heads; skipped where either is not installed."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain import strip as deepbet
from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.preprocess import preprocess
from prognosis_dask.brain.strip import check_tool, settle_strip, strip_with
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, JobError, MissingExtraError, WeightsError
from tests.heads import WITH_MASK, apart_mm, lost_ml, overlap, read_head, read_mask

pytestmark = pytest.mark.engines
needs_deepbet = pytest.mark.skipif(not deepbet.installed(), reason="torch or deepbet is not installed here")


@needs_deepbet
def test_run_here_the_networks_give_deepbets_own_mask(shared_data):
    image = read_head(shared_data, "p04_1_T1W")
    found = strip_with("deepbet", image)
    truth = read_mask(shared_data, "p04_1_T1W", image)
    different = np.count_nonzero(sitk.GetArrayViewFromImage(found) != sitk.GetArrayViewFromImage(truth))
    assert different <= 10  # of 400,000, where a value lies at the threshold
    assert found.GetOrigin() == image.GetOrigin()


@needs_deepbet
def test_the_last_layer_in_slabs_gives_the_networks_own_bits():
    import torch

    from prognosis_dask.networks.torch_engine import repeatable

    volume = torch.from_numpy(np.random.default_rng(0).normal(0.449, 0.226, (1, 1, 64, 64, 64)).astype(np.float32))
    for network in deepbet._networks():
        with repeatable():
            assert torch.equal(deepbet._chance(network, volume), network(volume)[0, 1])


@needs_deepbet
@pytest.mark.parametrize(("name", "least"), [("T1", 0.96), ("T1c", 0.96), ("FLAIR", 0.955), ("T2", 0.93)])
def test_a_glioma_patients_sequences_are_stripped_as_hd_bet_does(shared_data, name, least):
    image = read_head(shared_data, f"FG6692_{name}")
    found, truth = strip_with("deepbet", image), read_mask(shared_data, f"FG6692_{name}", image)
    assert overlap(found, truth) >= least
    assert lost_ml(found, truth) < 3


@needs_deepbet
def test_a_head_whose_top_is_missing_keeps_the_brain_of_its_highest_slices(shared_data):
    image = axial(read_head(shared_data, "p04_1_T1W"))[:, :, :-14]
    found, truth = strip_with("deepbet", image), read_mask(shared_data, "p04_1_T1W", image)
    inside, held = (sitk.GetArrayViewFromImage(mask)[-2:] > 0 for mask in (truth, found))
    assert np.count_nonzero(inside & ~held) < 0.02 * np.count_nonzero(inside)


@needs_deepbet
def test_a_session_is_stripped_by_the_network_where_it_is_installed(shared_data):
    images = {name: axial(read_head(shared_data, f"FG6692_{name}")) for name in ("T2", "FLAIR", "T1")}
    assert settle_strip(BrainSection()).skull_strip == "deepbet"
    done = preprocess(images, BrainSection(), reference="T2")
    truth = read_mask(shared_data, "FG6692_T2", images["T2"])
    assert overlap(done.brain_mask, truth) >= 0.95
    assert lost_ml(done.brain_mask, truth) < 5
    assert apart_mm(done.brain_mask, truth) < 6  # one slice


@pytest.mark.slow
@needs_deepbet
def test_two_methods_agree_on_a_real_head(shared_data):
    image = axial(read_head(shared_data, "FG6692_T1"))
    done = preprocess({"T1": image}, BrainSection(skull_strip="deepbet", compare_with="template"))
    assert 0.93 < done.quality["agreement"] < 1


def test_a_method_is_not_compared_with_itself():
    with pytest.raises(JobError, match=r"brain\.compare_with is 'template', which strips already"):
        settle_strip(BrainSection(skull_strip="template", compare_with="template"))


@needs_deepbet
def test_an_image_without_a_brain_is_a_problem():
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (30, 96, 96)).astype(np.float32))
    noise.SetSpacing((2.0, 2.0, 5.0))
    with pytest.raises(CaseError, match="brain-not-found"):
        preprocess({"T1": noise}, BrainSection(skull_strip="deepbet"))


def test_only_deepbets_own_files_are_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    assert torch
    for name in deepbet._FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"another network")
    monkeypatch.setattr(deepbet, "weights", lambda: {name: tmp_path / name for name in deepbet._FILES})
    deepbet._networks.cache_clear()
    with pytest.raises(WeightsError, match=r"sha256 .* install deepbet 1\.0\.2 again"):
        deepbet._networks()


def test_without_deepbet_the_template_strips_and_what_to_install_is_said(monkeypatch):
    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    assert settle_strip(BrainSection()).skull_strip == "template"
    assert settle_strip(BrainSection(skull_strip="hd-bet")).skull_strip == "hd-bet"
    with pytest.raises(MissingExtraError, match=r"prognosis-dask\[brain\].*brain.skull_strip = 'template'"):
        check_tool("deepbet")


def test_every_head_that_is_compared_has_its_mask(shared_data):
    for name in WITH_MASK:
        image = read_head(shared_data, name)
        assert sitk.GetArrayViewFromImage(read_mask(shared_data, name, image)).any()
