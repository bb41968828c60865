"""What is said of the networks: parameters as GluonCV has them, clips, class names."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.networks.catalogue import NETWORKS, class_labels, find_network
from prognosis_dask.networks.clips import ClipRule


def regions(*lengths):
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (length, 128, 128), dtype=np.uint8) for length in lengths]


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.library == "gluoncv"])
def test_parameters_are_those_of_gluoncv(gluon, name):
    network = NETWORKS[name]
    block = gluon.model_zoo.get_model(name, pretrained=False, pretrained_base=False)
    theirs = {key: tuple(parameter.shape) for key, parameter in block._collect_params_with_prefix().items()}
    assert set(theirs) - set(network.aliases) == set(network.parameters)
    assert {key: theirs[key] for key in network.parameters} == network.parameters
    assert all(theirs[alias] == theirs[key] for alias, key in network.aliases.items())
    classifier = next(shape for key, shape in reversed(theirs.items()) if key.endswith("weight"))
    assert (network.outputs["logits"], network.outputs["pooled"]) == classifier


def test_class_names_are_gluoncvs_in_its_order(gluon):
    from gluoncv.data.kinetics400.classification import Kinetics400Attr

    def plain(names):
        return [re.sub(r"\W|_", "", name) for name in names]

    assert plain(class_labels("kinetics400")) == plain(Kinetics400Attr().classes)


def test_class_names_stand_over_logits_only():
    network = find_network("i3d_inceptionv1_kinetics400")
    assert len(network.labels("logits")) == len(network.feature_names("logits"))
    assert network.labels("logits")[-1] == "zumba"
    assert network.labels("pooled") == ()


def test_frames_are_resized_as_scipy_does_and_normalised():
    (frames,) = regions(3)
    rule = ClipRule(frames=3, resized=(180, 200), size=(112, 160), mean=(0.5,), std=(0.25,))
    grey = np.stack([ndimage.zoom(frame.astype(float), (180 / 128, 200 / 128), order=1) for frame in frames])
    expected = (np.floor(grey[:, 34:146, 20:180] + 0.5) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(rule.make(frames)[0], expected, atol=1.01 / 255 / 0.25)
    assert (np.abs(rule.make(frames)[0] - expected) < 1e-6).mean() > 0.999  # halves are rounded in another way


def test_slow_and_fast_paths_are_sampled_as_gluoncv_samples_64_frames():
    # GluonCV's videos: every second frame of 64, then every sixteenth (or eighth), here of a region of 32 slices
    for name, step in (("slowfast_4x16_resnet50_kinetics400", 16), ("slowfast_8x8_resnet50_kinetics400", 8)):
        order = find_network(name).clip.order(32)
        assert (2 * order).tolist() == [*range(0, 64, 2), *range(0, 64, step)]
        assert find_network(name).min_length == len(order)


@pytest.mark.parametrize("n_slices", [1, 2, 31, 33, 64, 100])
def test_a_clip_of_fixed_length_spans_the_region_evenly(n_slices):
    order = ClipRule(frames=32).order(n_slices)
    assert len(order) == 32
    assert order[0] + (n_slices - 1 - order[-1]) <= n_slices / 32
    shown = np.bincount(order, minlength=n_slices)
    assert shown.max() - shown.min() <= 1


def test_what_are_no_frames_are_refused():
    for frames in (np.zeros((0, 128, 128), np.uint8), np.zeros((3, 128, 127), np.uint8), np.zeros((3, 128, 128))):
        with pytest.raises(CaseError, match="expected uint8 of shape") as caught:
            ClipRule().make(frames)
        assert caught.value.problem.code is Code.CLIP_INVALID


def test_the_documentation_has_every_network():
    page = (Path(__file__).parents[1] / "docs" / "networks.md").read_text()
    for network in NETWORKS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{network.name}`")]
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        assert cells[0] == ", ".join(network.engines)
        assert cells[2] == f"{network.clip.size[0]} x {network.clip.size[1]} of {network.clip.resized[0]}"
        assert cells[3] == str(network.outputs["pooled"])
        assert cells[4].lower() == network.library
