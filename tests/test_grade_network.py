"""The grade network: its input, its layers, and what the engines compute, beside slow and obvious versions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import correlate

from prognosis_dask.config.job import GradeSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.networks.grade_network import (
    BRAIN,
    TUMOUR,
    GradeNetwork,
    InputGrid,
    feature_names,
    isotropic_crop,
    study_input,
)
from prognosis_dask.networks.training import augment, load_learner, rotate, run_network, train
from tests.training_cases import ENGINES, made_volumes, need


def resized(picture, height, width):
    """One slice, pixel by pixel: what OpenCV documents of INTER_LINEAR."""
    rows, columns = picture.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            above, left = math.floor(y), math.floor(x)
            below, right = min(above + 1, rows - 1), min(left + 1, columns - 1)
            top = picture[above, left] * (1 - (x - left)) + picture[above, right] * (x - left)
            bottom = picture[below, left] * (1 - (x - left)) + picture[below, right] * (x - left)
            result[i, j] = top * (1 - (y - above)) + bottom * (y - above)
    return result


def studys_steps(slices):
    """The study's steps as its text gives them, one after the other."""
    pictures = [resized(picture, 64, 64) for picture in slices]
    chunk = math.ceil(len(pictures) / 20)
    averages = []
    for start in range(0, len(pictures), chunk):
        members = pictures[start : start + chunk]
        averages.append(sum(members) / len(members))
    while len(averages) < 20:
        averages.append(np.zeros((64, 64)))
    return np.array(averages)


@pytest.mark.parametrize("shape", [(48, 90, 70), (20, 64, 64), (21, 33, 128), (7, 40, 40), (1, 64, 50)])
def test_the_input_is_what_the_studys_steps_give(shape):
    slices = np.random.default_rng(0).normal(100, 30, shape)
    volume = study_input(slices)
    assert volume.dtype == np.float32
    np.testing.assert_allclose(volume, studys_steps(slices), rtol=1e-5)


def test_a_real_input_of_the_study_gives_sixteen_slices_and_four_of_zeros(shared_data):
    image = sitk.ReadImage(str(shared_data / "brain" / "smooth_LGG-203_T2.nii.gz"))
    volume = study_input(sitk.GetArrayFromImage(image))
    assert image.GetSize()[2] == 48
    assert [bool(picture.any()) for picture in volume] == [True] * 16 + [False] * 4


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        (np.zeros((64, 64)), "shape (64, 64)"),
        (np.zeros((3, 20, 64, 64)), "shape (3, 20, 64, 64)"),
        (np.zeros((0, 64, 64)), "none of them 0"),
        (np.full((2, 8, 8), np.nan), "not finite: 128 of 128"),
    ],
)
def test_what_is_no_stack_of_slices_is_refused(slices, says):
    with pytest.raises(CaseError) as caught:
        study_input(slices)
    assert caught.value.problem.code is Code.IMAGE_INVALID
    assert says in caught.value.problem.reason


def tilted(size=(60, 50, 20), spacing=(1.0, 1.2, 5.0)):
    """An image whose values are a linear function of the place, tilted as head scans are, with a mask in it."""
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetOrigin((-30.0, -25.0, -40.0))
    angle = math.radians(17)
    image.SetDirection((1, 0, 0, 0, math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle)))
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 3)
    places = np.array([image.TransformIndexToPhysicalPoint(tuple(map(int, at))) for at in grid])
    values = (2 * places[:, 0] - 3 * places[:, 1] + places[:, 2]).reshape(size)
    filled = sitk.GetImageFromArray(np.ascontiguousarray(values.T, np.float32))
    filled.CopyInformation(image)
    mask = sitk.Image(size, sitk.sitkUInt8)
    mask.CopyInformation(image)
    mask[20:41, 15:36, 6:15] = 1
    return filled, mask


def test_the_isotropic_crop_lies_where_the_mask_does():
    image, mask = tilted()
    crop = isotropic_crop(image, mask, InputGrid((6, 8, 10), 2.0))
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint((30.0, 25.0, 10.0)))
    z, y, x = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * 2.0 for n in (6, 8, 10)), indexing="ij")
    expected = 2 * (middle[0] + x) - 3 * (middle[1] + y) + (middle[2] + z)
    np.testing.assert_allclose(crop, expected, atol=0.05)


def test_the_isotropic_crop_refuses_masks_of_other_sizes_and_empty_ones():
    image, mask = tilted()
    for wrong, code in ((mask[:, :, 1:], Code.MASK_OTHER_GRID), (mask * 0, Code.MASK_EMPTY)):
        with pytest.raises(CaseError) as caught:
            isotropic_crop(image, wrong, TUMOUR)
        assert caught.value.problem.code is code


def test_layers_and_parameters_are_the_studys():
    # by hand, for 64 x 64 x 20 voxels of one channel, channels and slices first
    network = GradeNetwork()
    assert network.layers == {
        "conv_1": (32, 20, 64, 64),
        "pool_1": (32, 10, 32, 32),
        "conv_2": (64, 10, 32, 32),
        "pool_2": (64, 5, 16, 16),
        "flat": (81920,),
        "dense_1": (512,),
        "dense_2": (32,),
        "output": (1,),
    }
    counts = {name: math.prod(shape) for name, shape in network.parameters.items()}
    by_layer = {name: counts[f"{name}.weight"] + counts[f"{name}.bias"] for name in ("conv_1", "conv_2", "dense_1")}
    assert by_layer == {"conv_1": 896, "conv_2": 55_360, "dense_1": 41_943_552}
    assert counts["dense_2.weight"] + counts["dense_2.bias"] == 16_416
    assert sum(counts.values()) == 896 + 55_360 + 41_943_552 + 16_416 + 33
    # networks on the crops are of the same order
    for grid in (BRAIN, TUMOUR):
        assert 3e7 < sum(math.prod(shape) for shape in GradeNetwork(grid.shape).parameters.values()) < 5e7


def test_deep_features_are_the_hidden_layers():
    assert len(feature_names()) == len(set(feature_names())) == 512 + 32


SHAPE = (5, 8, 6)


def forward(values, volume, kept=(1.0, 1.0)):
    """The network on one volume in float64, layer by layer."""
    channels = [volume.astype(float)]
    for name in ("conv_1", "conv_2"):
        kernels, bias = values[f"{name}.weight"].astype(float), values[f"{name}.bias"].astype(float)
        filtered = [
            sum(correlate(channel, part, mode="constant") for channel, part in zip(channels, kernel, strict=True)) + b
            for kernel, b in zip(kernels, bias, strict=True)
        ]
        channels = [largest(channel) for channel in filtered]
    flat = np.stack(channels).ravel()
    first = np.maximum(values["dense_1.weight"].astype(float) @ flat + values["dense_1.bias"], 0)
    second = np.maximum(values["dense_2.weight"].astype(float) @ (first * kept[0]) + values["dense_2.bias"], 0)
    logit = values["output.weight"].astype(float) @ (second * kept[1]) + values["output.bias"]
    return first, second, float(logit[0])


def largest(channel):
    """Of every 2 x 2 x 2 voxels; what is left over at the end is dropped."""
    a, b, c = (size // 2 * 2 for size in channel.shape)
    windows = channel[:a, :b, :c].reshape(a // 2, 2, b // 2, 2, c // 2, 2)
    return windows.max((1, 3, 5))


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(1)
    values = GradeNetwork(SHAPE).draw(rng)
    for name in values:
        if name.endswith("bias"):
            values[name] = rng.normal(0, 0.1, values[name].shape).astype(np.float32)
    return values, rng.normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_computes_the_network(engine, small, request):
    need(engine, request)
    values, volumes = small
    learner = load_learner(GradeNetwork(SHAPE), values, GradeSection(engine=engine))
    for name, array in learner.values().items():
        np.testing.assert_array_equal(array, values[name], name)
    first, second, logits = learner.run(volumes)
    for number, volume in enumerate(volumes):
        expected = forward(values, volume)
        np.testing.assert_allclose(first[number], expected[0], atol=1e-5)
        np.testing.assert_allclose(second[number], expected[1], atol=1e-5)
        np.testing.assert_allclose(logits[number], expected[2], atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_goes_down_the_gradient_as_adam_does(engine, small, request):
    need(engine, request)
    values, volumes = small
    rng = np.random.default_rng(2)
    labels, weights = np.array([1, 0, 1], np.float32), np.array([0.7, 1.4, 0.7], np.float32)
    kept = tuple((rng.random((3, width)) > 0.3).astype(np.float32) / np.float32(0.7) for width in (512, 32))

    def loss(changed):
        z = np.array([forward(changed, v, k)[2] for v, *k in zip(volumes, *kept, strict=True)])
        return np.mean(weights * (np.logaddexp(0, z) - z * labels))

    section = GradeSection(engine=engine, learning_rate=1e-3)
    learner = load_learner(GradeNetwork(SHAPE), values, section)
    assert learner.step(volumes, labels, weights, kept) == pytest.approx(loss(values), rel=1e-5)
    after = learner.values()
    for name, array in values.items():
        at = int(np.abs(after[name] - array).argmax())
        gradient = slope(loss, values, name, at)
        assert abs(gradient) > 1e-4, name  # else the step would say nothing of it
        # the first step of Adam: the learning rate, against the gradient's sign
        step = (after[name] - array).ravel()[at]
        assert step == pytest.approx(-1e-3 * np.sign(gradient), rel=0.01), name


def slope(loss, values, name, at, width=1e-3):
    changed = []
    for sign in (1, -1):
        array = values[name].astype(float).copy()
        array.ravel()[at] += sign * width
        changed.append(loss({**values, name: array}))
    return (changed[0] - changed[1]) / (2 * width)


def test_augmentation_turns_about_the_middle_and_leaves_zeros():
    volume = np.zeros((2, 21, 21), np.float32)
    volume[0, 10, 15] = 1.0  # slices stay apart: the second one is one of the appended
    turned = rotate(volume, 90.0)
    assert turned[0].argmax() in (np.ravel_multi_index((at, 10), (21, 21)) for at in (5, 15))
    np.testing.assert_allclose(rotate(volume, 0.0), volume, atol=1e-6)
    rng = np.random.default_rng(0)
    changed = [augment(volume, rng) for _ in range(20)]
    assert not any(one[1].any() for one in changed)
    columns = [one[0].max(axis=0).argmax() for one in changed]
    assert {column < 10 for column in columns} == {True, False}  # flipped, or not
    assert all(0.6 < one.sum() < 1.4 for one in changed)


@pytest.mark.engines
def test_both_engines_train_alike(gluon):
    pytest.importorskip("torch")
    volumes, labels = made_volumes(8, shape=SHAPE)
    section = GradeSection(epochs=2, patience=0)
    ours, theirs = (train(volumes, labels, "abcdefgh", replace(section, engine=engine))[0] for engine in ENGINES)
    losses = [[epoch.training_loss for epoch in trained.curve] for trained in (ours, theirs)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    found = [run_network(trained, volumes, section)[1] for trained in (ours, theirs)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
