"""The savings of the torch network, each against the slow obvious version in float64."""

import numpy as np
import pytest

from prognosis_dask.networks.catalogue import find_network
from prognosis_dask.networks.clips import MEAN, STD, ClipRule
from prognosis_dask.networks.weights import resolve_weights

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from prognosis_dask.networks.torch_engine import grey_clips, torch_runner  # noqa: E402
from prognosis_dask.networks.torch_network import (  # noqa: E402
    EPSILON,
    GREY_ZERO,
    ColourStem,
    GreyStemLayer,
    InceptionV1,
    WinogradConvolution,
    fold_grey,
    fold_normalisation,
    largest_around,
    unit_names,
)

NETWORK = find_network("i3d_inceptionv1_kinetics400")
DOUBLE = torch.float64


@pytest.fixture(scope="module")
def values():
    return resolve_weights("untrained:3", NETWORK).values


def relative(value, expected):
    return float((value - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("slices", [6, 26])
def test_clips_made_by_torch_are_the_clips_pixel_for_pixel(slices):
    frames = np.random.default_rng(slices).integers(0, 256, (2, slices, 128, 128)).astype(np.uint8)
    frames[0, 0, :2] = [[0], [255]]  # the greatest step, at the border
    grey = grey_clips(torch.from_numpy(frames)).numpy()
    scale = np.array(STD)[:, None, None, None]
    for ours, region in zip(grey, frames, strict=True):
        normalised = (ours / 255 - np.array(MEAN)[:, None, None, None]) / scale
        np.testing.assert_array_equal(normalised.astype(np.float32), ClipRule().make(region))


@pytest.mark.parametrize(
    "rule",
    [
        ClipRule(),
        ClipRule(frames=16, resized=(128, 128), size=(112, 112)),
        ClipRule(frames=8, slow_step=4),
        ClipRule(frames=3, resized=(180, 2001), size=(111, 2000), mean=(0.5,), std=(0.25,)),
    ],
)
def test_any_networks_clips_are_made_on_its_device_to_the_last_bit(rule):
    run = torch_runner(torch.nn.Flatten(), "cpu", "deep")
    for slices in (1, 5, 9):
        frames = np.random.default_rng(slices).integers(0, 256, (slices, 128, 128)).astype(np.uint8)
        np.testing.assert_array_equal(run.of_frames(frames, rule), rule.make(frames).ravel())


@pytest.mark.parametrize("unit", ["features.2", "features.5.1.0", "features.15.3.1"])
def test_batch_normalisation_is_folded_into_its_convolution(values, unit):
    folded = fold_normalisation(values, unit)
    kernels = torch.from_numpy(values[f"{unit}.0.weight"].astype(float))
    gamma, beta, mean, variance = (
        torch.from_numpy(values[f"{unit}.1.{name}"].astype(float))
        for name in ("gamma", "beta", "running_mean", "running_var")
    )
    x = torch.randn(2, kernels.shape[1], 3, 4, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    plain = functional.batch_norm(functional.conv3d(x, kernels), mean, variance, gamma, beta, eps=EPSILON)
    once = functional.conv3d(x, torch.from_numpy(folded.kernels), torch.from_numpy(folded.bias))
    assert relative(once, plain) < 1e-14


def test_every_convolution_of_the_network_is_folded(values):
    assert len(unit_names(values)) == 57
    assert 5 * len(unit_names(values)) + 2 == len(NETWORK.parameters)


@pytest.mark.parametrize("length", [5, 6, 7, 8, 9, 10, 15, 16])
def test_grey_stem_equals_the_three_channels_up_to_the_borders(values, length):
    # padding with zeros comes after normalisation: every border, even and odd lengths
    stem = fold_normalisation(values, "features.0")
    grey = torch.randint(0, 256, (1, 1, length, 224, 224), generator=torch.Generator().manual_seed(length)).double()
    mean, std = (torch.tensor(v, dtype=DOUBLE).view(1, 3, 1, 1, 1) for v in (MEAN, STD))
    with torch.inference_mode():
        three = ColourStem(stem)((grey / 255 - mean) / std)
        one = GreyStemLayer(fold_grey(stem))(grey - GREY_ZERO)
    assert one.shape == three.shape
    assert relative(one, three) < 1e-13


@pytest.mark.engines
@pytest.mark.slow
def test_clips_of_several_lengths_in_one_batch_have_the_features_that_they_have_alone(values):
    lengths = (5, 7, 8, 13, 14)
    network = InceptionV1(values, "pooled").prepare(torch.device("cpu"), DOUBLE)
    grey = torch.randint(
        -114, 142, (len(lengths), 1, 16, 224, 224), generator=torch.Generator().manual_seed(1)
    ).double()
    for row, length in enumerate(lengths):
        grey[row, :, length:] = 0
    with torch.inference_mode():
        together = network(grey, lengths)
        for row, length in enumerate(lengths):
            assert relative(together[row], network(grey[row : row + 1, :, :length])[0]) < 1e-12


def test_grey_levels_are_exact_in_bfloat16():
    levels = torch.arange(256) - GREY_ZERO
    assert (levels.bfloat16().int() == levels).all()


@pytest.mark.parametrize(
    ("inputs", "outputs", "shape"),
    [
        (64, 192, (3, 56, 56)),
        (128, 192, (2, 28, 28)),
        (144, 288, (1, 14, 14)),
        (160, 320, (7, 14, 14)),
        (5, 3, (4, 9, 2)),
    ],
)
def test_convolutions_with_a_quarter_of_the_products_round_as_float32_does(inputs, outputs, shape):
    seed = torch.Generator().manual_seed(inputs)
    x = torch.randn(1, inputs, *shape, generator=seed).relu()
    kernels = torch.randn(outputs, inputs, 3, 3, 3, generator=seed, dtype=DOUBLE) / (27 * inputs) ** 0.5
    bias = torch.randn(outputs, generator=seed, dtype=DOUBLE)
    exact = functional.conv3d(x.double(), kernels, bias, padding=1).relu()
    with torch.inference_mode():
        ours = WinogradConvolution(kernels.numpy(), bias.numpy())(x.contiguous(memory_format=torch.channels_last_3d))
    assert (ours - exact).square().mean() < 1e-12 * exact.square().mean()
    assert relative(ours, exact) < 5e-6


@pytest.mark.parametrize("shape", [(1, 14, 14), (2, 7, 7), (5, 28, 28)])
def test_the_largest_value_around_is_torchs_own(shape):
    x = torch.randn(2, 8, *shape, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last_3d)
    x[0, 0, 0, 3, 4] = torch.nan
    assert torch.equal(largest_around(x).nan_to_num(9), functional.max_pool3d(x, 3, 1, 1).nan_to_num(9))


def test_fused_convolutions_equal_torchs_own(values):
    frames = np.random.default_rng(0).integers(0, 256, (1, 5, 128, 128)).astype(np.uint8)
    grey = grey_clips(torch.from_numpy(frames)) - GREY_ZERO
    exact = InceptionV1(values, "pooled").prepare(torch.device("cpu"), DOUBLE)
    fast = InceptionV1(values, "pooled").prepare(torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        expected = exact(grey.double())
        assert relative(fast(grey.float().contiguous(memory_format=torch.channels_last_3d)), expected) < 2e-6
