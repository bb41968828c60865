"""Name and shape of every parameter of GluonCV's networks, in the order of computation."""

from __future__ import annotations

from collections.abc import Iterator

Shapes = dict[str, tuple[int, ...]]

# Inception v1 inflated to 3D (Carreira and Zisserman 2017, arXiv:1705.07750), layer numbers as GluonCV has them.
# Stem: layer, channels in, channels out, kernel.
_STEM = ((0, 3, 64, 7), (2, 64, 64, 1), (3, 64, 192, 3))
# Inception blocks: layer, channels in, then channels out of the four branches: 1; 1 and 3; 1 and 3; pool and 1.
_BLOCKS = (
    (5, 192, 64, 96, 128, 16, 32, 32),
    (6, 256, 128, 128, 192, 32, 96, 64),
    (8, 480, 192, 96, 208, 16, 48, 64),
    (9, 512, 160, 112, 224, 24, 64, 64),
    (10, 512, 128, 128, 256, 24, 64, 64),
    (11, 512, 112, 144, 288, 32, 64, 64),
    (12, 528, 256, 160, 320, 32, 128, 128),
    (14, 832, 256, 160, 320, 32, 128, 128),
    (15, 832, 384, 192, 384, 48, 128, 128),
)


def inception_v1(classes: int) -> Shapes:
    """I3D Inception v1."""
    shapes: Shapes = {}
    for unit, cin, cout, kernel in _inception_v1_units():
        shapes |= _unit(f"{unit}.0", f"{unit}.1", (cout, cin, kernel, kernel, kernel))
    return shapes | {"output.weight": (classes, 1024), "output.bias": (classes,)}


def _inception_v1_units() -> Iterator[tuple[str, int, int, int]]:
    """Name, channels in, channels out and kernel of every convolution and the batch normalisation after it."""
    for layer, cin, cout, kernel in _STEM:
        yield f"features.{layer}", cin, cout, kernel
    for layer, cin, one, narrow_a, wide_a, narrow_b, wide_b, pooled in _BLOCKS:
        yield f"features.{layer}.0.0", cin, one, 1
        yield f"features.{layer}.1.0", cin, narrow_a, 1
        yield f"features.{layer}.1.1", narrow_a, wide_a, 3
        yield f"features.{layer}.2.0", cin, narrow_b, 1
        yield f"features.{layer}.2.1", narrow_b, wide_b, 3
        yield f"features.{layer}.3.1", cin, pooled, 1


# ResNet50 (He et al. 2016, arXiv:1512.03385): blocks of each of its four stages.
_RESNET50 = (3, 4, 6, 3)
# Frames under the first kernel of every block; I3D inflates every second one from the second stage on.
_INFLATED = ((3, 3, 3), (3, 1, 3, 1), (3, 1, 3, 1, 3, 1), (1, 3, 1))
#: Layers of a block's other name in GluonCV, ``bottleneck``.
_BOTTLENECK = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}


def i3d_resnet50(classes: int) -> Shapes:
    """I3D ResNet50 (Wang et al. 2018, arXiv:1711.07971, without the non-local blocks)."""
    shapes = _unit("first_stage.0", "first_stage.1", (64, 3, 5, 7, 7))
    cin = 64
    for stage, kernels in enumerate(_INFLATED):
        shapes |= _resnet_stage(f"res_layers.{stage}", cin, 64 * 2**stage, kernels)
        cin = 256 * 2**stage
    return shapes | {"fc.weight": (classes, cin), "fc.bias": (classes,)}


def i3d_resnet50_aliases() -> dict[str, str]:
    """GluonCV's files name most of its parameters twice."""
    names = {"head.1.weight": "fc.weight", "head.1.bias": "fc.bias"}
    for name in i3d_resnet50(classes=400):
        *block, layer, value = name.split(".")
        if layer in _BOTTLENECK:
            names[".".join([*block, "bottleneck", str(_BOTTLENECK[layer]), value])] = name
    return names


def slowfast_resnet50(classes: int, *, lateral_kernel: int) -> Shapes:
    """SlowFast ResNet50 (Feichtenhofer et al. 2019, arXiv:1812.03982): the fast path has an eighth of the channels."""
    shapes = _unit("fast_conv1", "fast_bn1", (8, 3, 5, 7, 7))
    fast = {"p1": 8} | {f"res{stage + 2}": 32 * 2**stage for stage in range(4)}
    for stage, (blocks, cin) in enumerate(zip(_RESNET50, fast.values(), strict=False)):
        shapes |= _resnet_stage(f"fast_res{stage + 2}", cin, 8 * 2**stage, (3,) * blocks)
    for name, channels in list(fast.items())[:-1]:
        lateral = f"lateral_{name}"
        shapes |= _unit(f"{lateral}.0", f"{lateral}.1", (2 * channels, channels, lateral_kernel, 1, 1))
    shapes |= _unit("slow_conv1", "slow_bn1", (64, 3, 1, 7, 7))
    for stage, blocks in enumerate(_RESNET50):
        # the path's own channels and those that come across, twice the fast path's
        cin = 80 if stage == 0 else 10 * 32 * 2 ** (stage - 1)
        shapes |= _resnet_stage(f"slow_res{stage + 2}", cin, 64 * 2**stage, (1 if stage < 2 else 3,) * blocks)
    return shapes | {"fc.weight": (classes, 2304), "fc.bias": (classes,)}


def _resnet_stage(name: str, cin: int, width: int, kernels: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for index, frames in enumerate(kernels):
        block = f"{name}.{index}"
        before = 4 * width if index else cin
        shapes |= _unit(f"{block}.conv1", f"{block}.bn1", (width, before, frames, 1, 1))
        shapes |= _unit(f"{block}.conv2", f"{block}.bn2", (width, width, 1, 3, 3))
        shapes |= _unit(f"{block}.conv3", f"{block}.bn3", (4 * width, width, 1, 1, 1))
        if index == 0:
            down = f"{block}.downsample"
            shapes |= _unit(f"{down}.0", f"{down}.1", (4 * width, cin, 1, 1, 1))
    return shapes


def _unit(convolution: str, normalisation: str, shape: tuple[int, ...]) -> Shapes:
    """A convolution without bias and the batch normalisation after it."""
    values = ("gamma", "beta", "running_mean", "running_var")
    return {f"{convolution}.weight": shape, **{f"{normalisation}.{name}": (shape[0],) for name in values}}
